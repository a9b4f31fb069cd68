package mafd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/adminapi/adminserver"
	"github.com/onem2m-maf/maf/internal/audit"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// auditedClients is the authority as the admin API sees it: every change has a
// line with what is intended, on stable storage, before it is made, and one with
// what became of it.
//
// It embeds nothing, so that a new method of the admin API has to say here what
// its lines are.
type auditedClients struct {
	clients *authority.Authority
	audit   *auditTrail
}

var _ adminserver.Clients = auditedClients{}

// intend begins a change, and returns what ends it.
func (a *auditTrail) intend(ctx context.Context, e audit.Event) (end func(*error), err error) {
	e.Role, e.Actor, e.Outcome = audit.Admin, adminserver.Caller(ctx), audit.Intended
	if err := a.log.Commit(ctx, e); err != nil {
		return nil, unaudited(err)
	}
	return func(err *error) {
		e.Outcome, e.Reason = result(*err)
		// The caller may be gone; the change is made. When there is no line now,
		// the one with the intention stands.
		a.log.Commit(context.WithoutCancel(ctx), e)
	}, nil
}

// result says how a change ended.
func result(err error) (audit.Outcome, string) {
	switch {
	case err == nil:
		return audit.OK, ""
	case errors.Is(err, authority.ErrInvalid), errors.Is(err, authority.ErrUnknownClient), errors.Is(err, authority.ErrExists),
		errors.Is(err, authority.ErrNoKey), errors.Is(err, authority.ErrDiffers), errors.As(err, new(*adminapi.Error)):
		return audit.Refused, err.Error()
	default:
		return audit.Failed, err.Error()
	}
}

// unaudited tells an administrator why nothing was done.
func unaudited(err error) error {
	if !errors.Is(err, audit.ErrUnavailable) {
		return err
	}
	return &adminapi.Error{Status: http.StatusServiceUnavailable, Code: adminapi.CodeInternal,
		Text: `the audit log can't be written, so nothing is changed (audit.on_failure is "refuse"); mafd's log says why it can't`}
}

func (c auditedClients) AddClient(ctx context.Context, client authority.Client, km secret.Key) (made authority.Client, _ secret.Key, err error) {
	end, err := c.audit.intend(ctx, audit.Event{Kind: audit.AddClient, Subject: client.KmID.String(), EntityB: client.IdB.String()})
	if err != nil {
		return authority.Client{}, secret.Key{}, err
	}
	defer end(&err)
	return c.clients.AddClient(ctx, client, km)
}

func (c auditedClients) Client(ctx context.Context, id onem2m.KmID) (authority.Client, error) {
	return c.clients.Client(ctx, id)
}

func (c auditedClients) ListClients(ctx context.Context, after onem2m.KmID, limit int) ([]authority.Client, error) {
	return c.clients.ListClients(ctx, after, limit)
}

// ListMasterKeys has its line from exportsKeys, before the first page.
func (c auditedClients) ListMasterKeys(ctx context.Context, after onem2m.KmID, limit int) ([]authority.Client, []secret.Key, error) {
	return c.clients.ListMasterKeys(ctx, after, limit)
}

// exportsKeys is the admin API's BeforeKeyExport.
func (a *auditTrail) exportsKeys(ctx context.Context) error {
	return unaudited(a.log.Commit(ctx, audit.Event{Kind: audit.ExportKeys, Role: audit.Admin, Actor: adminserver.Caller(ctx), Outcome: audit.OK}))
}

func (c auditedClients) UpdateClient(ctx context.Context, id onem2m.KmID, change func(*authority.Client) error) (after authority.Client, err error) {
	e := audit.Event{Kind: audit.ChangeClient, Subject: id.String()}
	end, err := c.audit.intend(ctx, e)
	if err != nil {
		return authority.Client{}, err
	}
	var before authority.Client
	defer func() {
		if err != nil {
			end(&err)
			return
		}
		e.Role, e.Actor, e.Outcome, e.EntityB = audit.Admin, adminserver.Caller(ctx), audit.OK, after.IdB.String()
		e.Kind, e.Reason = difference(&before, &after)
		c.audit.log.Commit(context.WithoutCancel(ctx), e)
	}()
	return c.clients.UpdateClient(ctx, id, func(client *authority.Client) error {
		before = *client
		return change(client)
	})
}

// difference names what an update changed.
func difference(before, after *authority.Client) (audit.Kind, string) {
	var changed []string
	note := func(what, from, to string) {
		if from != to {
			changed = append(changed, what+" from "+quoteEmpty(from)+" to "+quoteEmpty(to))
		}
	}
	note("Entity B", before.IdB.String(), after.IdB.String())
	note("AE-ID", before.AEID.String(), after.AEID.String())
	note("CSE-ID", before.CSEID.String(), after.CSEID.String())
	note("lifetime", before.Lifetime.String(), after.Lifetime.String())
	kind := audit.ChangeClient
	switch {
	case before.Disabled == after.Disabled:
		if len(changed) == 0 {
			return kind, "it was so already"
		}
	case after.Disabled:
		kind = audit.DisableClient
	default:
		kind = audit.EnableClient
	}
	return kind, strings.Join(changed, ", ")
}

func quoteEmpty(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (c auditedClients) RemoveClient(ctx context.Context, id onem2m.KmID) (err error) {
	end, err := c.audit.intend(ctx, audit.Event{Kind: audit.RemoveClient, Subject: id.String()})
	if err != nil {
		return err
	}
	defer end(&err)
	return c.clients.RemoveClient(ctx, id)
}

func (c auditedClients) RevokeKey(ctx context.Context, id onem2m.KcID) (err error) {
	end, err := c.audit.intend(ctx, audit.Event{Kind: audit.RevokeKey, Subject: id.String()})
	if err != nil {
		return err
	}
	defer end(&err)
	return c.clients.RevokeKey(ctx, id)
}

// ImportClient has one line for each client that it changed, which nobody waits
// for: there may be millions of them.
func (c auditedClients) ImportClient(ctx context.Context, in authority.Import) (authority.Outcome, error) {
	if in.DryRun {
		return c.clients.ImportClient(ctx, in)
	}
	if err := c.audit.log.Ready(); err != nil {
		return 0, unaudited(err)
	}
	outcome, err := c.clients.ImportClient(ctx, in)
	if err == nil && outcome == authority.Same {
		return outcome, nil
	}
	e := audit.Event{Kind: audit.ImportClient, Role: audit.Admin, Actor: adminserver.Caller(ctx),
		Subject: in.Client.KmID.String(), EntityB: in.Client.IdB.String()}
	e.Outcome, e.Reason = result(err)
	if err == nil && outcome == authority.Updated {
		e.Reason = "updated"
	}
	c.audit.record(e)
	return outcome, err
}

// issueEntityB is Daemon.issueEntityB with its lines.
func (d *Daemon) issueEntityBAudited(ctx context.Context, id onem2m.CSEID, life time.Duration) (b adminapi.EntityB, err error) {
	end, err := d.audit.intend(ctx, audit.Event{Kind: audit.IssueCertificate, Subject: id.String()})
	if err != nil {
		return b, err
	}
	defer end(&err)
	return d.issueEntityB(id, life)
}

// deniedAdmin records a user who may not administer mafd.
func (a *auditTrail) deniedAdmin(ctx context.Context) {
	if a.failures.allow() {
		a.record(audit.Event{Kind: audit.RefuseAdmin, Role: audit.Unproven, Actor: adminserver.Caller(ctx), Outcome: audit.Refused,
			Reason: "neither root nor the user that mafd runs as"})
	}
}

// auditedKeyset is the keyset as the admin API sees it, with lines as those of
// clients. It embeds nothing, for the same reason.
type auditedKeyset struct {
	keyset adminserver.Keyset
	audit  *auditTrail
}

// change makes one change with its lines.
func (k auditedKeyset) change(ctx context.Context, kind audit.Kind, subject string, do func() error) (err error) {
	end, err := k.audit.intend(ctx, audit.Event{Kind: kind, Subject: subject})
	if err != nil {
		return err
	}
	defer end(&err)
	return do()
}

func keyNumber(id uint32) string { return fmt.Sprintf("key %d", id) }

func (k auditedKeyset) Describe(ctx context.Context) (adminapi.Keyset, error) {
	return k.keyset.Describe(ctx)
}

func (k auditedKeyset) Add(ctx context.Context) (key adminapi.KeysetKey, err error) {
	err = k.change(ctx, audit.AddKeysetKey, "", func() error {
		key, err = k.keyset.Add(ctx)
		return err
	})
	return key, err
}

func (k auditedKeyset) Promote(ctx context.Context, id uint32) error {
	return k.change(ctx, audit.PromoteKeysetKey, keyNumber(id), func() error { return k.keyset.Promote(ctx, id) })
}

func (k auditedKeyset) Retire(ctx context.Context, id uint32) error {
	return k.change(ctx, audit.RetireKeysetKey, keyNumber(id), func() error { return k.keyset.Retire(ctx, id) })
}

func (k auditedKeyset) Protect(ctx context.Context) error {
	return k.change(ctx, audit.ProtectKeyset, "", func() error { return k.keyset.Protect(ctx) })
}

func (k auditedKeyset) StartRewrap(ctx context.Context, rate int) (r adminapi.Rewrap, err error) {
	err = k.change(ctx, audit.RewrapKeys, "", func() error {
		r, err = k.keyset.StartRewrap(ctx, rate)
		return err
	})
	return r, err
}

func (k auditedKeyset) Rewrap() adminapi.Rewrap { return k.keyset.Rewrap() }
