package store

import "strings"

// ArrayLiteral writes strings as a Postgres array literal, for nested arrays and for drivers that know no arrays. Every
// element is quoted, so that none is taken for NULL or for syntax.
func ArrayLiteral(elements []string) string {
	pointers := make([]*string, len(elements))
	for i := range elements {
		pointers[i] = &elements[i]
	}
	return NullableArrayLiteral(pointers)
}

// NullableArrayLiteral is the same with nil elements as NULL.
func NullableArrayLiteral(elements []*string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elements {
		if i > 0 {
			b.WriteByte(',')
		}
		if e == nil {
			b.WriteString("NULL")
			continue
		}
		b.WriteByte('"')
		b.WriteString(quoting.Replace(*e))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

var quoting = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
