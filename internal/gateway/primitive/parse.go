// Package primitive reads and writes the JSON of oneM2M requests so that no
// second reader can read it differently.
package primitive

import "errors"

// ErrSyntax is what every error of Parse, ParseRequest and ParseResponse is
// (with errors.Is).
var ErrSyntax = errors.New("primitive: malformed")

// Parse reads one JSON value. It does not keep b.
func Parse(b []byte) (*Value, error) { return nil, ErrSyntax }
