package adminapi

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/onem2m-maf/maf/onem2m"
)

// Names in the state folder that others than mafd look for.
const (
	SocketName  = "admin.sock"
	RuntimeName = "runtime.json"
	CAName      = "ca.pem" // mafd's own authority's certificate
	AuditFolder = "audit"
)

// SocketVariable is the environment variable that names mafd's admin socket.
const SocketVariable = "MAF_SOCKET"

// Runtime is what a running mafd tells about itself. It writes it to
// RuntimeName in the state folder once everything listens, and removes it when
// it stops.
type Runtime struct {
	PID     int           `json:"pid"`
	Version string        `json:"version"`
	State   string        `json:"state"` // folder
	FQDNs   []onem2m.FQDN `json:"fqdns"`
	// Real addresses, also where the configuration says port 0.
	TLS    []string `json:"tls"`
	DTLS   []string `json:"dtls"`
	KeyAPI []string `json:"keyAPI"`
	// Telemetry is where metrics and health are, often nowhere.
	Telemetry []string `json:"telemetry,omitempty"`
	Admin     string   `json:"admin"` // socket
	// CA is the PEM file of the authority that vouches for the key API's
	// certificate, when that is mafd's own.
	CA string `json:"ca,omitempty"`
}

// ReadRuntime reads what the mafd on the given state folder told.
func ReadRuntime(state string) (Runtime, error) {
	var r Runtime
	data, err := os.ReadFile(filepath.Join(state, RuntimeName))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// ServiceState is the state folder of a mafd that was installed as a system
// service.
const ServiceState = "/var/lib/mafd"

// DefaultState returns the state folder of a mafd that was not told another:
// systemd's $STATE_DIRECTORY, else mafd under $XDG_STATE_HOME, which is
// ~/.local/state where not set. It is the same from whatever folder a program
// is started, so that maf finds mafd and a second start finds the first's keys.
func DefaultState() (string, error) {
	// systemd writes several folders separated by colons; the first is ours.
	if list := filepath.SplitList(os.Getenv("STATE_DIRECTORY")); len(list) > 0 && list[0] != "" {
		return list[0], nil
	}
	// The XDG specification tells to ignore relative paths.
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mafd"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("no place for the state: none of $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME is set")
	}
	return filepath.Join(home, ".local", "state", "mafd"), nil
}

// DefaultSocket returns where the admin socket most likely is: what
// SocketVariable says, else in DefaultState, else in ServiceState when there
// is one and the former has none.
func DefaultSocket() (string, error) {
	if path := os.Getenv(SocketVariable); path != "" {
		return path, nil
	}
	service := filepath.Join(ServiceState, SocketName)
	state, err := DefaultState()
	if err != nil {
		return service, nil
	}
	own := filepath.Join(state, SocketName)
	if !exists(own) && exists(service) {
		return service, nil
	}
	return own, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
