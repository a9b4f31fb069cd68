// Package harden keeps the keys in a process's memory out of files and of other
// processes' hands, as far as the system lets a program ask for it.
package harden
