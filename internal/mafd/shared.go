package mafd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/store/pgstore"
	"github.com/onem2m-maf/maf/onem2m"
)

// sharedDatabase opens the key store that this node shares with others, and makes
// sure that it shares the keyset as well.
func (s *stateDir) sharedDatabase(ctx context.Context, c StoreConfig, k KeysetConfig, w watcher) (_ *database, err error) {
	db, err := pgstore.Open(ctx, pgstore.Options{
		URL: c.Postgres, PasswordFile: c.PasswordFile, OnTransaction: w.onTransaction, Log: w.log,
	})
	if err != nil {
		return nil, fmt.Errorf("the key store in PostgreSQL: %w", err)
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	mark, err := db.KeysetMark(ctx)
	if err != nil {
		return nil, err
	}
	s.first = mark == nil
	noKeyset, err := s.noKeyset(c)
	if err != nil {
		return nil, err
	}
	if noKeyset && mark != nil {
		return nil, fmt.Errorf("the key store in PostgreSQL is in use already, and %s is not there, without which its keys can't be read; "+
			"copy the keyset of another node there, or name it with store.keyset", s.keysetFile(c))
	}
	keyset, err := s.openKeyset(ctx, c, k, noKeyset)
	if err != nil {
		return nil, err
	}
	if err := claim(ctx, db, keyset, mark); err != nil {
		return nil, fmt.Errorf("%s: %w", s.keysetFile(c), err)
	}
	return &database{keyStore: db, keyset: keyset, revoked: db.Revoked()}, nil
}

var errOtherKeyset = errors.New("another keyset than that of the key store in PostgreSQL; " +
	"all nodes on one database share one keyset: copy that of another node there, or name it with store.keyset")

// markText is sealed into the mark, which tells nodes whether they share a keyset.
// Without it, two that start on an empty database would each add clients that the
// other can't serve.
var markText = []byte("maf keyset 1")

// claim makes sure that the keyset is the store's. mark is the store's, nil for a
// new one.
func claim(ctx context.Context, db *pgstore.DB, keyset *seal.Keyset, mark []byte) error {
	if mark != nil && opens(keyset, mark) && keyset.Current(mark) {
		return nil
	}
	if mark != nil && !opens(keyset, mark) {
		// The mark's key may have been retired since.
		known, err := knowsSomeClient(ctx, db, keyset)
		if err != nil {
			return err
		}
		if !known {
			return errOtherKeyset
		}
	}
	fresh, err := keyset.Seal(markText, markText)
	if err != nil {
		return err
	}
	// Another node may have been faster; then its mark counts.
	stored, err := db.MarkKeyset(ctx, mark, fresh)
	if err == nil && !opens(keyset, stored) {
		err = errOtherKeyset
	}
	return err
}

func opens(keyset *seal.Keyset, mark []byte) bool {
	_, err := keyset.Open(mark, markText)
	return err == nil
}

// knowsSomeClient reports whether a client's box names a key of the keyset. Whether
// the box opens with it, the authority finds out.
func knowsSomeClient(ctx context.Context, db *pgstore.DB, keyset *seal.Keyset) (bool, error) {
	some, err := db.Clients().List(ctx, onem2m.KmID{}, 16)
	for _, c := range some {
		id, ok := seal.BoxKey(c.SealedKm)
		if ok && slices.ContainsFunc(keyset.Keys(), func(k seal.Key) bool { return k.ID == id }) {
			return true, nil
		}
	}
	return false, err
}

// remark seals the mark anew when it names a key that is about to be retired.
func (d *database) remark(ctx context.Context) error {
	shared, ok := d.keyStore.(*pgstore.DB)
	if !ok {
		return nil
	}
	mark, err := shared.KeysetMark(ctx)
	if err != nil {
		return err
	}
	return claim(ctx, shared, d.keyset, mark)
}
