package mafd

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
)

// database is the key store and the keyset that its keys are encrypted with.
type database struct {
	keyStore
	keyset *seal.Keyset
	// revoked, when not nil, has a token when another node may have revoked something.
	revoked <-chan struct{}
}

// keyStore is what the embedded store and the shared one have in common.
type keyStore interface {
	Clients() store.ClientStore
	Keys() store.KeyStore
	Counts(ctx context.Context) (clients, keys int, err error)
	Close() error
}

// watcher is who is told of what the store does.
type watcher struct {
	onTransaction func(changes int, took time.Duration, err error)
	log           *slog.Logger
}

// database opens the key store, and makes it at the first start.
func (s *stateDir) database(ctx context.Context, c StoreConfig, k KeysetConfig, w watcher) (*database, error) {
	if c.Postgres != "" {
		return s.sharedDatabase(ctx, c, k, w)
	}
	noStore, err := s.missing(storeName, "the key store")
	if err != nil {
		return nil, err
	}
	s.first = noStore
	noKeyset, err := s.noKeyset(c)
	if err != nil {
		return nil, err
	}
	if noKeyset && !noStore {
		// A new keyset would make the keys in the store garbage for good.
		return nil, fmt.Errorf("%s is there but not %s, without which its keys can't be read; restore it from a backup",
			s.file(storeName), s.keysetFile(c))
	}
	// The keyset is made first, so that no crash leaves a store without one.
	keyset, err := s.openKeyset(ctx, c, k, noKeyset)
	if err != nil {
		return nil, err
	}
	db, err := sqlstore.Open(ctx, s.file(storeName), sqlstore.Options{OnTransaction: w.onTransaction})
	if err != nil {
		return nil, fmt.Errorf("the key store: %w", err)
	}
	return &database{keyStore: db, keyset: keyset}, nil
}

// keysetFile is where the keyset is.
func (s *stateDir) keysetFile(c StoreConfig) string {
	return s.file(cmp.Or(c.Keyset, keysetName))
}

// noKeyset reports whether there is none yet.
func (s *stateDir) noKeyset(c StoreConfig) (bool, error) {
	return s.missing(cmp.Or(c.Keyset, keysetName), "what the key store is encrypted with: back up both, apart from each other")
}

// openKeyset reads the keyset, or makes it.
func (s *stateDir) openKeyset(ctx context.Context, c StoreConfig, k KeysetConfig, absent bool) (*seal.Keyset, error) {
	file, err := k.file(s.keysetFile(c))
	if err != nil {
		return nil, err
	}
	open := file.Load
	if absent {
		open = file.Create
	}
	keyset, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("the keyset: %w", err)
	}
	return keyset, nil
}

func (d *database) close() error {
	if err := d.Close(); err != nil {
		return fmt.Errorf("closing the key store: %w", err)
	}
	return nil
}
