package primitive

// A Request is a request primitive as MQTT and the polling channel carry it
// (TS-0004 8.2.2).
type Request struct {
	Operation int    // op: 1 CREATE to 5 NOTIFY
	To        string // to
	From      string // fr
	HasFrom   bool
	RequestID string // rqi
	Type      int    // ty, 0 when absent
	Content   *Value // pc, nil when absent
	Rest      *Value // an object of the other members, all of them known ones
	// Wrapped tells that the primitive stands in an object as its only member
	// "m2m:rqp", as some peers write it. Value does as it says.
	Wrapped bool
}

// ParseRequest takes a request primitive apart. A member that TS-0004 does not
// name is an error, and so is one whose letter case differs.
func ParseRequest(v *Value) (*Request, error) { return nil, ErrSyntax }

// Value returns the primitive as JSON.
func (r *Request) Value() *Value { return Object() }

// A Response is a response primitive.
type Response struct {
	Status    int    // rsc
	RequestID string // rqi
	Content   *Value // pc, nil when absent
	To, From  string // to and fr; "" when absent
	Rest      *Value // an object of the other members, all of them known ones
	Wrapped   bool   // in "m2m:rsp"
}

// ParseResponse takes a response primitive apart. Unlike ParseRequest it drops
// members that it does not know: a CSE's answer is no threat to the CSE.
func ParseResponse(v *Value) (*Response, error) { return nil, ErrSyntax }

// Value returns the primitive as JSON.
func (r *Response) Value() *Value { return Object() }
