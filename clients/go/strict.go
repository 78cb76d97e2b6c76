package tipserve

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// checkQuotes refuses a quoted field of CSV that goes on after its quotes, or
// that has no end: what is meant is not to be guessed. A quote within a field
// without quotes is one.
func checkQuotes(text []byte, delimiter byte) error {
	const (
		start = iota
		plain
		quoted
		afterQuote
	)
	at, line, since := start, 1, 1
	for _, one := range text {
		switch {
		case at == quoted && one == '"':
			at = afterQuote
		case at == quoted:
		case (at == start || at == afterQuote) && one == '"':
			at, since = quoted, line
		case one == '\n' || one == '\r' || one == delimiter:
			at = start
		case at == afterQuote:
			return fmt.Errorf("line %d: a field goes on after its quotes", line)
		default:
			at = plain
		}
		if one == '\n' {
			line++
		}
	}
	if at == quoted {
		return fmt.Errorf("line %d: a quoted field has no end", since)
	}
	return nil
}

// escapes are the ways in which JSON writes what is no letter: one of UTF-16's
// units, or any other character after a backslash.
var escapes = regexp.MustCompile(`\\(?:u[0-9A-Fa-f]{4}|.)`)

// halfPair tells whether a text of JSON escapes half of a surrogate pair, which
// encoding/json takes for U+FFFD.
func halfPair(text []byte) bool {
	high, end := false, 0
	for _, place := range escapes.FindAllIndex(text, -1) {
		unit := uint64(0)
		if place[1]-place[0] == 6 {
			unit, _ = strconv.ParseUint(string(text[place[0]+2:place[1]]), 16, 32)
		}
		low := 0xdc00 <= unit && unit < 0xe000
		if high != (low && place[0] == end) || (low && !high) {
			return true
		}
		high, end = 0xd800 <= unit && unit < 0xdc00, place[1]
	}
	return high
}

// checkJSON refuses what encoding/json takes for something else: half of a
// surrogate pair, and a number that no float64 holds.
func checkJSON(text []byte) error {
	if halfPair(text) {
		return errors.New("half of a surrogate pair")
	}
	var value any
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal(text, &value); errors.As(err, &wrong) {
		return fmt.Errorf("%s, which is too large", wrong.Value)
	}
	return nil
}
