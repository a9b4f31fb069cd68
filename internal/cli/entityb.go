package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/wholefile"
)

// Names of the files that "entity-b add" writes.
const (
	certFile = "cert.pem"
	keyPEM   = "key.pem"
	caFile   = "ca.pem"
)

func (a *app) entityBCommand() *cobra.Command {
	cmd := group("entity-b", "Platforms that ask the MAF for keys", a.entityBAdd())
	a.socketFlag(cmd)
	return cmd
}

func (a *app) entityBAdd() *cobra.Command {
	var (
		dir      string
		lifetime time.Duration
	)
	cmd := &cobra.Command{
		Use:   "add CSE-ID --out FOLDER",
		Short: "Issue a certificate for an Entity B from mafd's own authority",
		Long: `Issue a certificate by which an Entity B proves its CSE-ID to mafd's key API.

It comes from the small authority that mafd made at its first start. Where mafd
is configured with another one (keyapi.client_ca), ask that one instead.`,
		Example: `  maf entity-b add //sp.example.com/in-cse --out ./in-cse`,
		Args:    arguments(1, 1, "the CSE-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := adminapi.NewEntityB{Lifetime: adminapi.Duration(lifetime)}
			if err := parse("the CSE-ID", args[0], &asked.CSEID); err != nil {
				return usageError{err}
			}
			admin, err := a.admin()
			if err != nil {
				return err
			}
			issued, err := admin.AddEntityB(cmd.Context(), asked)
			if err != nil {
				return err
			}
			return a.writeEntityB(dir, issued)
		},
	}
	cmd.Flags().StringVar(&dir, "out", "", "folder for "+certFile+", "+keyPEM+" and "+caFile+", made if missing")
	cmd.Flags().DurationVar(&lifetime, "lifetime", 0, "how long the certificate is good for (default one year)")
	cmd.MarkFlagRequired("out")
	return cmd
}

func (a *app) writeEntityB(dir string, issued adminapi.EntityB) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files := []struct {
		name string
		data []byte
	}{
		{keyPEM, issued.Key.Bytes()}, // first: it is what tells whether the folder is taken
		{certFile, []byte(issued.Certificate)},
		{caFile, []byte(issued.CA)},
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		err := wholefile.Create(path, f.data, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return &advised{fmt.Errorf("%s exists, and a key file is never overwritten", path), "another folder", exitFailed}
		}
		if err != nil {
			return err
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	return a.out.result(struct {
		CSEID       string    `json:"cseID"`
		Certificate string    `json:"certificate"`
		Key         string    `json:"key"`
		CA          string    `json:"ca"`
		NotAfter    time.Time `json:"notAfter"`
	}{issued.CSEID.String(), path(certFile), path(keyPEM), path(caFile), issued.NotAfter.UTC()},
		field{"CSE-ID", issued.CSEID.String()},
		field{"certificate", path(certFile)},
		field{"key", path(keyPEM)},
		field{"trusts", path(caFile)},
		field{"good until", stamp(issued.NotAfter)})
}
