// Package flood attacks a real mafd, as a process of its own, over loopback, and
// counts what that costs it and what it costs honest clients. It has tests only.
//
// Plain "go test" runs a short form of each. The whole ones, whose figures are
// in docs/engine-evidence.md, are
//
//	MAF_LONG=1 go test -v -timeout 30m ./internal/flood
//
// They need Linux: its /proc, and 127.0.0.0/8, all of whose addresses serve as
// sources.
package flood
