// Package httpgw is the gateway's HTTP binding (TS-0009): devices speak HTTP/1.1
// through associations, and the CSE behind gets from the gateway what the
// policy allows.
//
// No octet of a device's request is passed on. It is read strictly, checked, and
// written anew from the checked parts in one form: a method, a path without
// escapes, the headers of TS-0009 in their usual letter case and once each, and
// JSON serialised by package primitive. So no CSE can find another originator in
// it than the gateway did.
//
//	backend, err := httpgw.NewBackend(httpgw.BackendConfig{URL: "http://127.0.0.1:8080"})
//	server, err := httpgw.New(httpgw.Config{Rules: rules, Backend: backend})
//	err = server.Serve(listener)
//
// A [Backend] is also the way to an HTTP CSE for other bindings.
package httpgw
