// Echocse stands where a CSE would, to try mafgw with: it does nothing, believes
// everything, and says who it thinks has asked.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
)

func main() {
	address := flag.String("listen", "127.0.0.1:8080", "where to listen, over HTTP and in clear")
	flag.Parse()
	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", l.Addr())
	log.Fatal(http.Serve(l, http.HandlerFunc(answer)))
}

// status has the response status code of each operation that goes well.
var status = map[string]string{"GET": "2000", "POST": "2001", "DELETE": "2002", "PUT": "2004"}

func answer(w http.ResponseWriter, r *http.Request) {
	seen := fmt.Sprintf("%s %s by %s", r.Method, r.URL.Path, r.Header.Get("X-M2M-Origin"))
	fmt.Println(seen)
	w.Header().Set("X-M2M-RSC", status[r.Method])
	w.Header().Set("X-M2M-RI", r.Header.Get("X-M2M-RI"))
	w.Header().Set("Content-Type", "application/json")
	if r.Method == "POST" {
		w.WriteHeader(http.StatusCreated)
	}
	json.NewEncoder(w).Encode(map[string]string{"m2m:dbg": seen})
}
