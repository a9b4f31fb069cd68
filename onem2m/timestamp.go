package onem2m

import "time"

const timestampLayout = "20060102T150405"

// FormatTimestamp writes t as an m2m:timestamp, ISO 8601's basic format in UTC:
// "20141003T112032" (TS-0004 6.3.3). Fractions of a second are cut off, so that
// an expiry never moves into the future. The year of t must be 0 to 9999.
func FormatTimestamp(t time.Time) string { return t.UTC().Format(timestampLayout) }

// ParseTimestamp reads an m2m:timestamp. The result is in UTC.
func ParseTimestamp(s string) (time.Time, error) {
	t, err := time.Parse(timestampLayout, s)
	// time.Parse takes a fraction that the layout doesn't have.
	if err != nil || FormatTimestamp(t) != s {
		return time.Time{}, refuse("m2m:timestamp", s, "it is not a UTC time written like 20141003T112032")
	}
	return t, nil
}
