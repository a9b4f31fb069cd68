#!/bin/sh
# Makes the users, and tells systemd of the units. Nothing is started: whoever
# installs a server for keys configures it first. An upgrade restarts what runs.
set -e
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers maf.conf || true
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	systemctl try-restart mafd.service mafgw.service || true
fi
