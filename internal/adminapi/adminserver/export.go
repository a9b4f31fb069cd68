package adminserver

import (
	"context"
	"net/http"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// exportPage is how many clients an export holds in memory.
const exportPage = 500

func (s *server) exportClients(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	query := r.URL.Query()
	filter, err := readQuery(query, "km")
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	withKm, err := readBool(query, "km")
	if err == nil && withKm {
		err = s.mayExportKeys(r.Context())
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", linesType)
	n, begun, err := s.export(w, r, filter, withKm)
	if withKm {
		s.Log.Warn("master keys exported", "clients", n, "complete", err == nil)
	} else {
		s.Log.Info("clients exported", "clients", n, "complete", err == nil)
	}
	switch {
	case err == nil:
	case begun:
		s.Log.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "error", err.Error())
		panic(http.ErrAbortHandler) // that the answer breaks off is how the caller learns
	default:
		s.refuse(w, r, err)
	}
}

// mayExportKeys decides, and leaves a trace before the first key leaves.
func (s *server) mayExportKeys(ctx context.Context) error {
	if !s.AllowKeyExport {
		s.Log.Warn("an export of master keys was refused: admin.allow_key_export is not set")
		return &adminapi.Error{Status: http.StatusForbidden, Code: adminapi.CodeForbidden,
			Text: "this mafd does not export master keys; its configuration has to allow it (admin.allow_key_export)"}
	}
	s.Log.Warn("an export of master keys begins")
	if s.BeforeKeyExport != nil {
		return s.BeforeKeyExport(ctx)
	}
	return nil
}

// export writes the clients that the filter lets through, and returns how many,
// and whether the answer has begun.
func (s *server) export(w http.ResponseWriter, r *http.Request, f filter, withKm bool) (n int, begun bool, err error) {
	control := http.NewResponseController(w)
	buf := make([]byte, 0, 64<<10) // it never grows: what it left behind could not be cleared
	defer func() { clear(buf[:cap(buf)]) }()
	write := func() error {
		begun = true
		control.SetWriteDeadline(time.Now().Add(streamPatience))
		_, err := w.Write(buf)
		buf = buf[:0]
		return err
	}
	after := f.begin(onem2m.KmID{})
	for {
		clients, kms, err := s.exportPage(r.Context(), after, withKm)
		if err != nil {
			return n, begun, err
		}
		over := len(clients) < exportPage
		for i := range clients {
			c := &clients[i]
			after = c.KmID
			over = over || f.over(c.KmID)
			if f.lets(c) && err == nil {
				n++
				buf, err = appendClient(buf, c, kms[i])
			}
			kms[i].Wipe()
			if len(buf) > cap(buf)-adminapi.MaxRow && err == nil {
				err = write()
			}
		}
		if err != nil {
			return n, begun, err
		}
		if over {
			err = write()
			return n, begun, err
		}
	}
}

func appendClient(b []byte, c *authority.Client, km secret.Key) ([]byte, error) {
	row := adminapi.ImportRow{NewClient: adminapi.NewClient{Client: wire(*c), Km: adminapi.Key{Key: km}}}
	row.Created = time.Time{} // not an import's to say
	return row.AppendLine(b)
}

// exportPage returns clients with their keys, or with none.
func (s *server) exportPage(ctx context.Context, after onem2m.KmID, withKm bool) ([]authority.Client, []secret.Key, error) {
	if withKm {
		return s.Clients.ListMasterKeys(ctx, after, exportPage)
	}
	clients, err := s.Clients.ListClients(ctx, after, exportPage)
	return clients, make([]secret.Key, len(clients)), err
}
