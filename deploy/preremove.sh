#!/bin/sh
# Stops the services when the package goes, but not for an upgrade. The state in
# /var/lib/mafd stays: it holds the keys of every device.
set -e
case "$1" in
upgrade | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now mafd.service mafgw.service mafd-tls.socket mafd-dtls.socket mafd-keyapi.socket || true
fi
