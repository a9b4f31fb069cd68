// Package deployment holds the tests in which everything is real and at once:
// mafd, mafgw and maf as processes, other people's clients in front of them, and a
// CSE behind.
package deployment
