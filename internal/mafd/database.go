package mafd

import (
	"context"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
)

// database is the key store and the keyset that its keys are encrypted with.
type database struct {
	*sqlstore.DB
	keyset *seal.Keyset
}

// database opens the key store, and makes it at the first start.
func (s *stateDir) database(ctx context.Context, onTransaction func(changes int, took time.Duration, err error)) (*database, error) {
	noStore, err := s.missing(storeName, "the key store")
	if err != nil {
		return nil, err
	}
	s.first = noStore
	noKeyset, err := s.missing(keysetName, "what the key store is encrypted with: back up both, apart from each other")
	if err != nil {
		return nil, err
	}
	if noKeyset && !noStore {
		// A new keyset would make the keys in the store garbage for good.
		return nil, fmt.Errorf("%s is there but not %s, without which its keys can't be read; restore it from a backup",
			s.file(storeName), s.file(keysetName))
	}
	// The keyset is made first, so that no crash leaves a store without one.
	file := seal.File{Path: s.file(keysetName)}
	open := file.Load
	if noKeyset {
		open = file.Create
	}
	keyset, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("the keyset: %w", err)
	}
	db, err := sqlstore.Open(ctx, s.file(storeName), sqlstore.Options{OnTransaction: onTransaction})
	if err != nil {
		return nil, fmt.Errorf("the key store: %w", err)
	}
	return &database{db, keyset}, nil
}

func (d *database) close() error {
	if err := d.Close(); err != nil {
		return fmt.Errorf("closing the key store: %w", err)
	}
	return nil
}
