// Package adminapi is how programs administer a running mafd: the types that
// go over the wire, and the calling side. The answering side is the package
// adminserver, apart so that the maf tool does not contain the key store.
//
// The API is HTTP and JSON on a Unix socket that only mafd's own user and root
// may use:
//
//	GET    /v1/status            what mafd serves: Runtime
//	POST   /v1/clients           NewClient: 201 Created
//	GET    /v1/clients           ?after=KmID&limit=N and a Filter: ClientPage, by KmID
//	POST   /v1/clients:import    ?update=true&dryRun=true: a line of ImportRow for
//	                             each client; ImportReports come back as lines
//	GET    /v1/clients:export    ?km=true and a Filter: lines of ImportRow
//	GET    /v1/clients/{KmID}    Client
//	PATCH  /v1/clients/{KmID}    ClientChange: Client
//	DELETE /v1/clients/{KmID}    204
//	DELETE /v1/keys/{KcID}       one Kc is revoked: 204
//	POST   /v1/entity-b          NewEntityB: 201 EntityB
//	GET    /v1/keyset            Keyset
//	POST   /v1/keyset/keys       a new key: 201 KeysetKey
//	POST   /v1/keyset/keys/{ID}/promote  204
//	DELETE /v1/keyset/keys/{ID}  204
//	POST   /v1/keyset/rewrap     NewRewrap: 202 Rewrap
//	GET    /v1/keyset/rewrap     Rewrap
//	POST   /v1/keyset/protect    204
//
// docs/admin-api.yaml describes it in OpenAPI.
//
// A body has the members that are written down, each once and in this letter
// case. Every refusal is an Error as JSON under its status. Times are RFC 3339 in
// UTC, spans of time Go's durations ("24h"), identifiers their oneM2M text.
package adminapi

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// Limits of a page of clients.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// Client is a device (Entity A) as the MAF knows it, less its key.
type Client struct {
	KmID    onem2m.KmID  `json:"kmID"`
	EntityB onem2m.CSEID `json:"entityB"` // the one Entity B its Kcs are for, absolute
	// At most one of the two is set: what Entity B is told about the device.
	AEID  onem2m.AEID  `json:"aeID,omitzero"`
	CSEID onem2m.CSEID `json:"cseID,omitzero"`
	// Lifetime of each Kc; zero for the server's default.
	Lifetime Duration `json:"lifetime,omitzero"`
	// Disabled keeps the device out, and its Kcs from being released.
	Disabled bool      `json:"disabled"`
	Created  time.Time `json:"created,omitzero"`
}

// NewClient asks for a client. Without Km mafd makes one.
type NewClient struct {
	Client
	Km Key `json:"km,omitzero"`
}

// CreatedClient answers NewClient. Km is there when mafd made it, and is never
// shown again.
type CreatedClient struct {
	Client
	Km Key `json:"km,omitzero"`
}

// ClientPage is part of the list of clients. More follow when Next is set: ask
// for those after Next.
type ClientPage struct {
	Clients []Client    `json:"clients"`
	Next    onem2m.KmID `json:"next,omitzero"`
}

// ClientChange changes what is not nil. A pointer to a zero value clears: the
// AE-ID, the CSE-ID, the lifetime.
type ClientChange struct {
	EntityB  *onem2m.CSEID `json:"entityB,omitempty"`
	AEID     *onem2m.AEID  `json:"aeID,omitempty"`
	CSEID    *onem2m.CSEID `json:"cseID,omitempty"`
	Lifetime *Duration     `json:"lifetime,omitempty"`
	Disabled *bool         `json:"disabled,omitempty"`
}

// NewEntityB asks mafd's own authority for an Entity B's certificate.
type NewEntityB struct {
	CSEID    onem2m.CSEID `json:"cseID"`             // absolute
	Lifetime Duration     `json:"lifetime,omitzero"` // zero for one year
}

// EntityB is what an Entity B needs to ask the key API for keys.
type EntityB struct {
	CSEID       onem2m.CSEID `json:"cseID"`
	Certificate string       `json:"certificate"` // PEM
	Key         Key          `json:"key"`         // PEM
	CA          string       `json:"ca"`          // PEM: who vouches for the key API
	NotAfter    time.Time    `json:"notAfter"`
}

// Error is a refusal by the admin API.
type Error struct {
	Status int    `json:"status"` // HTTP's
	Code   Code   `json:"code"`   // for programs
	Text   string `json:"error"`  // for people
}

func (e *Error) Error() string { return e.Text }

// Is makes errors.Is(err, code) work.
func (e *Error) Is(target error) bool { return target == e.Code }

// A Code says for programs why the admin API refused. It is an error, to be
// asked for with errors.Is.
type Code string

func (c Code) Error() string { return string(c) }

// The codes.
const (
	CodeInvalid      Code = "invalid"       // the request, by its text
	CodeNotFound     Code = "not_found"     // no such client, key or method
	CodeExists       Code = "exists"        // a client of that KmID is there
	CodeDiffers      Code = "differs"       // a client is there, but not as the import has it
	CodeBusy         Code = "busy"          // others change the client; try again
	CodeInUse        Code = "in_use"        // something still needs the keyset's key
	CodeNotAuthority Code = "not_authority" // Entity Bs are vouched for by another authority than mafd's
	CodeForbidden    Code = "forbidden"     // the caller runs as another user, or may not export keys
	CodeInternal     Code = "internal"      // mafd's log says more
)

// Key is a secret on its way over the socket: the one type here that marshals
// to the real key, in base64.
type Key struct{ secret.Key }

// MarshalText returns the key itself in base64.
func (k Key) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString(k.Bytes())), nil
}

// UnmarshalText reads hexadecimal or base64.
func (k *Key) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*k = Key{}
		return nil
	}
	k.Key, err = secret.Parse(text)
	return err
}

// Duration is a time.Duration that stands in JSON as "24h".
type Duration time.Duration

// String is time.Duration's, less the zero parts at its end: "24h", not
// "24h0m0s".
func (d Duration) String() string { return configfile.Short(time.Duration(d)) }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is not a time with its unit, such as "30m" or "24h"`, text)
	}
	*d = Duration(v)
	return nil
}
