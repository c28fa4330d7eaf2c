package jsonb

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// invalidUTF8 walks a value as encoding/json would and returns the path of the first string that is not UTF-8, or
// nothing. encoding/json replaces such bytes silently: the job would run with other arguments than were given.
// The value has been encoded before, so that it has no cycles.
func invalidUTF8(value any) string {
	return walk(reflect.ValueOf(value), "value", 0)
}

var (
	rawMessage    = reflect.TypeFor[json.RawMessage]()
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func walk(v reflect.Value, path string, depth int) string {
	if !v.IsValid() || depth > maxDepth { // deeper: only through fields that are not encoded
		return ""
	}
	if v.Type() == rawMessage {
		if !utf8.Valid(v.Bytes()) {
			return path
		}
		return ""
	}
	for _, t := range []reflect.Type{v.Type(), reflect.PointerTo(v.Type())} {
		if (t == v.Type() || v.CanAddr()) && (t.Implements(jsonMarshaler) || t.Implements(textMarshaler)) {
			return "" // it answers for its own output
		}
	}
	switch v.Kind() {
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return path
		}
	case reflect.Pointer, reflect.Interface:
		return walk(v.Elem(), path, depth+1)
	case reflect.Struct:
		return walkStruct(v, path, depth)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return "" // base64
		}
		for i := range v.Len() {
			if where := walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1); where != "" {
				return where
			}
		}
	case reflect.Map:
		for iter := v.MapRange(); iter.Next(); {
			if where := walk(iter.Key(), path+" key", depth+1); where != "" {
				return where
			}
			if where := walk(iter.Value(), fmt.Sprintf("%s[%v]", path, iter.Key()), depth+1); where != "" {
				return where
			}
		}
	}
	return ""
}

func walkStruct(v reflect.Value, path string, depth int) string {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() && !embedded(field) || field.Tag.Get("json") == "-" {
			continue
		}
		if where := walk(v.Field(i), path+"."+field.Name, depth+1); where != "" {
			return where
		}
	}
	return ""
}

// embedded reports whether a field is a struct whose exported fields are written though its own name is not exported.
func embedded(field reflect.StructField) bool {
	t := field.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return field.Anonymous && t.Kind() == reflect.Struct
}
