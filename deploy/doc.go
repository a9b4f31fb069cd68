// Package deploy holds what is around the programs where they are installed:
// systemd units, packages, the container image, a dashboard and alerts. Its tests
// look whether all of that fits the programs.
package deploy
