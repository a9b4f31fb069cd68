package onem2m_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

func ExampleParseKmID() {
	// A KmId is not case sensitive, so one device has one identifier.
	id, err := onem2m.ParseKmID("Meter7@MAF.example.com")
	fmt.Println(id, id.FQDN, err)
	fmt.Println(id.CredentialID())

	_, err = onem2m.ParseKmID("meter 7@maf.example.com")
	fmt.Println(err)
	// Output:
	// meter7@maf.example.com maf.example.com <nil>
	// 11-meter7@maf.example.com
	// "meter 7@maf.example.com" is not a valid KmId: only letters, digits, '.', '_' and '-' may stand before the @
}

func ExampleKcID() {
	// The first 16 octets of what a MAF Handshake exports, and the MAF's name.
	relative := onem2m.RelativeKeyID{0xde, 0xad, 0xbe, 0xef}
	fmt.Println(onem2m.KcID{Relative: relative, FQDN: "maf.example.com"})
	// Output: DEADBEEF000000000000000000000000@maf.example.com
}

func ExampleCSEID_DomainName() {
	id, _ := onem2m.ParseCSEID("/in-cse")
	id = id.Absolute("sp.example.com")
	fmt.Println(id, id.DomainName())
	// Output: //sp.example.com/in-cse in-cse.sp.example.com
}

func ExampleAEID_Absolute() {
	registrar, _ := onem2m.ParseCSEID("//sp.example.com/in-cse")
	for _, text := range []string{"Cmeter7", "Smeter7", "/Smeter7", "/mn-cse/Cmeter7"} {
		id, _ := onem2m.ParseAEID(text)
		fmt.Println(id, id.Absolute(registrar))
	}
	// Output:
	// Cmeter7 //sp.example.com/in-cse/Cmeter7
	// Smeter7 //sp.example.com/Smeter7
	// /Smeter7 //sp.example.com/Smeter7
	// /mn-cse/Cmeter7 //sp.example.com/mn-cse/Cmeter7
}

func ExampleFormatTimestamp() {
	fmt.Println(onem2m.FormatTimestamp(time.Date(2014, 10, 3, 11, 20, 32, 0, time.UTC)))
	// Output: 20141003T112032
}

func ExampleKmID_UnmarshalText() {
	var config struct {
		Device onem2m.KmID
		AE     onem2m.AEID
	}
	err := json.Unmarshal([]byte(`{"Device": "meter7@maf.example.com", "AE": "Cmeter7/.."}`), &config)
	fmt.Println(config.Device, err)
	// Output: meter7@maf.example.com "Cmeter7/.." is not a valid AE-ID: only letters, digits, '-', '.', '_' and '~' may stand in it
}
