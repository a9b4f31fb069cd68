package httpgw

import (
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
)

// What the CSE gets of a plain request is exactly this.
func TestRequestAsTheCSEGetsIt(t *testing.T) {
	cse := backendtest.Start(t, backendtest.FirstWins)
	c := newRig(t, cse.URL, nil).meter()
	got := c.ask(request("POST /%69n-cse/Cmeter7?rcn=1&lbl=a+b&lbl=c%20d",
		`x-m2m-origin: Cmeter7
X-M2M-RI: 4711
x-M2M-rvi: 3
Content-Type: application/vnd.onem2m-res+json; ty=3
Accept: */*
User-Agent: meter
Cookie: a=b
Authorization: Basic Y3NlOmFkbWlu
X-Forwarded-For: 127.0.0.1
X_M2M_Origin: Cthief
Connection: keep-alive, X-M2M-Origin
X-M2M-RSC: 2000
Date: Thu, 01 Jan 1970 00:00:00 GMT`, "{ \"m2m:cnt\" : {\"rn\":\"\\u0061\", \"mni\":1e2 } }\n"))
	if got.status != 200 || got.rsc() != 2001 || got.headers["X-M2M-RI"] != "4711" || got.headers["X-M2M-RVI"] != "3" || got.headers["Server"] != "" {
		t.Errorf("the device got %v", got)
	}
	seen := only(t, cse)
	want := "POST /in-cse/Cmeter7?rcn=1&lbl=a+b+c%20d HTTP/1.1\r\n" +
		"Host: " + strings.TrimPrefix(cse.URL, "http://") + "\r\n" +
		"X-M2M-Origin: Cmeter7\r\n" +
		"X-M2M-RI: " + seen.ID + "\r\n" +
		"X-M2M-RVI: 3\r\n" +
		"Accept: application/json\r\n" +
		"Content-Type: application/json;ty=3\r\n" +
		"Content-Length: 32\r\n\r\n" +
		`{"m2m:cnt":{"rn":"a","mni":1e2}}`
	if seen.Raw != want {
		t.Errorf("the CSE got\n%s\nwant\n%s", seen.Raw, want)
	}
	if seen.ID == "4711" || len(seen.ID) > 32 {
		t.Errorf("request identifier %q", seen.ID)
	}
}
