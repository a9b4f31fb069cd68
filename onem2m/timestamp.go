package onem2m

import (
	"strings"
	"time"
)

const timestampLayout = "20060102T150405"

// FormatTimestamp writes t as an m2m:timestamp, ISO 8601's basic format in UTC:
// "20141003T112032" (TS-0004 6.3.3). Fractions of a second are cut off, so that
// an expiry never moves into the future. The year of t must be 0 to 9999.
func FormatTimestamp(t time.Time) string { return t.UTC().Format(timestampLayout) }

// ParseTimestamp reads an m2m:timestamp, with or without the fraction that
// every reader has to accept: a comma and one to six digits. The result is in
// UTC.
func ParseTimestamp(s string) (time.Time, error) {
	whole, fraction, hasFraction := strings.Cut(s, ",")
	if hasFraction && (len(fraction) < 1 || len(fraction) > 6) {
		return time.Time{}, refuseTimestamp(s)
	}
	// time.Parse reads a fraction the layout doesn't have, after a comma or a
	// dot. The comma is wanted; whole being what we would write rules out the
	// dot, and whatever other freedom time.Parse takes.
	t, err := time.Parse(timestampLayout, s)
	if err != nil || FormatTimestamp(t) != whole {
		return time.Time{}, refuseTimestamp(s)
	}
	return t, nil
}

func refuseTimestamp(s string) error {
	return refuse("m2m:timestamp", s, "it is not a UTC time written like 20141003T112032 or 20141003T112032,123456")
}
