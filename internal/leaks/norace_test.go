//go:build !race

package leaks

const raceDetector = false
