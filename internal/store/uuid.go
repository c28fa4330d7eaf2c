package store

import (
	"database/sql/driver"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// pgx carries a uuid.UUID through its text form in both directions, because the type is a driver.Valuer and a
// sql.Scanner: a third of a claim's processor time here. These types say what they are.

// UUIDs is a uuid[] parameter.
type UUIDs []uuid.UUID

func (u UUIDs) Dimensions() []pgtype.ArrayDimension { return dimensions(len(u)) }
func (u UUIDs) Index(i int) any                     { return (*uuidTarget)(&u[i]) } // a value would be copied to the heap
func (u UUIDs) IndexType() any                      { return (*uuidTarget)(nil) }

// NullableUUIDs is a uuid[] parameter with nulls.
type NullableUUIDs []*uuid.UUID

func (u NullableUUIDs) Dimensions() []pgtype.ArrayDimension { return dimensions(len(u)) }
func (u NullableUUIDs) IndexType() any                      { return pgtype.UUID{} }

func (u NullableUUIDs) Index(i int) any {
	if u[i] == nil {
		return pgtype.UUID{}
	}
	return pgtype.UUID{Bytes: *u[i], Valid: true}
}

func dimensions(n int) []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(n), LowerBound: 1}}
}

// uuidTarget reads a uuid that is not null, and sends it.
type uuidTarget uuid.UUID

func (u *uuidTarget) UUIDValue() (pgtype.UUID, error) {
	return pgtype.UUID{Bytes: *u, Valid: true}, nil
}

func (u *uuidTarget) ScanUUID(v pgtype.UUID) error {
	*u = v.Bytes
	return nil
}

// uuidParam is a uuid parameter, which pgx sends as it is; a plain uuid.UUID it would first ask for its text.
type uuidParam uuid.UUID

func (u uuidParam) UUIDValue() (pgtype.UUID, error) { return pgtype.UUID{Bytes: u, Valid: true}, nil }

// Value is for database/sql.
func (u uuidParam) Value() (driver.Value, error) { return uuid.UUID(u).String(), nil }

// wordTarget reads a text, not null, of which the same few come again and again, such as a kind's name: it is kept once.
type wordTarget struct {
	into *string
	last string
}

func (w *wordTarget) ScanBytes(v []byte) error {
	if string(v) != w.last {
		w.last = string(v)
	}
	*w.into = w.last
	return nil
}
