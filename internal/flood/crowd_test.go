package flood

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A crowdOrder tells a process of devices what to do. It stands by then, says
// "ready", and begins when it is told to go.
type crowdOrder struct {
	Network, To string
	First       int      // the number of the first device
	Keys        [][]byte // one for each device
	OneSource   bool     // all are behind one address
}

// A crowdReport says of each device how it fared.
type crowdReport []deviceReport

type deviceReport struct {
	Took  time.Duration // from the start until it had its key
	Tries int
	KcID  onem2m.KcID // zero when it has none
	Error string      // of its last failure
}

// crowd plays devices.
func crowd(in io.Reader, out io.Writer) int {
	orders, reports := json.NewDecoder(in), json.NewEncoder(out)
	var order crowdOrder
	if err := orders.Decode(&order); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	report := make(crowdReport, len(order.Keys))
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, km := range order.Keys {
		source := from(100, order.First+i)
		if order.OneSource {
			source = net.IPv4(127, 0, 0, 1)
		}
		all.Go(func() {
			<-start
			report[i] = persist(order.Network, source, order.To, config(order.First+i, secret.Own(km)))
		})
	}
	reports.Encode("ready")
	var command string
	if err := orders.Decode(&command); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	close(start)
	all.Wait()
	reports.Encode(report)
	return 0
}

// How a device behaves that wants its key: it waits after a failure, longer each
// time, and never as long as another one does, so that those who failed together
// don't come back together.
const (
	firstPause = time.Second
	mostPause  = 30 * time.Second
	deviceTime = 20 * time.Second // for an attempt
	enoughTime = 5 * time.Minute
)

// persist tries until it has a key.
func persist(network string, source net.IP, to string, c *tlspsk.Config) deviceReport {
	ctx, cancel := context.WithTimeout(context.Background(), enoughTime)
	defer cancel()
	var r deviceReport
	begin := time.Now()
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, mostPause) {
		r.Tries++
		id, err := obtain(ctx, network, source, to, c)
		if err == nil {
			r.Took, r.KcID = time.Since(begin), id
			return r
		}
		r.Error = err.Error()
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
		}
	}
	r.Took = time.Since(begin)
	return r
}

// obtain does one MAF Handshake and returns the key's name.
func obtain(ctx context.Context, network string, source net.IP, to string, c *tlspsk.Config) (onem2m.KcID, error) {
	ctx, cancel := context.WithTimeout(ctx, deviceTime)
	defer cancel()
	conn, err := dial(ctx, network, source, to, c)
	if err != nil {
		return onem2m.KcID{}, err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	exported, err := state.ExportKeyingMaterial(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
	if err != nil {
		return onem2m.KcID{}, err
	}
	relative, _, err := kdf.Connection(exported)
	return onem2m.KcID{Relative: relative, FQDN: served}, err
}

// dial does one MAF Handshake from a source.
func dial(ctx context.Context, network string, source net.IP, to string, c *tlspsk.Config) (*tlspsk.Conn, error) {
	d := tlspsk.Dialer{Config: c, NetDialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: source}}}
	if network == "tcp" {
		d.NetDialer = &net.Dialer{LocalAddr: &net.TCPAddr{IP: source}, Control: choosePortLate}
	}
	conn, err := d.DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	return conn.(*tlspsk.Conn), nil
}
