// Package leaks holds the tests of what must never be seen: master keys (Km),
// connection keys (Kc), master secrets and record keys, in whatever a program
// prints or writes, however it ends.
//
// A finder looks for every run of octets of a secret in every form in which Go
// or a careless hand would show it. The programs are the real ones, at debug
// level, through success and every kind of failure. Each test also looks for
// what is shown on purpose, and fails when it does not find that.
package leaks
