package status

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/listing"
	"fragwall/filter"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

const listToken = "0123456789abcdef"

// newListServer returns the server of a box with two flows. The first flow has seen a reply.
func newListServer(t *testing.T, token string) *Server {
	t.Helper()
	source, s := newSource(t)
	source.Bump.Reload(&filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "dns", Line: 7, Action: verdict.Accept}}})
	lite := packettest.UDP(client, server, packettest.Body(40))
	lite.Protocol = 136
	for _, f := range []struct {
		from  verdict.Side
		frame []byte
	}{
		{verdict.Inside, packettest.UDP(client, server, nil).Frame()}, {verdict.Outside, packettest.UDP(server, client, packettest.Body(900)).Frame()},
		{verdict.Inside, lite.Frame()},
	} {
		s.Forward(f.from, tun.Frame{Data: f.frame}, time.Unix(1, 0))
	}
	return NewServer(source, listing.New(source.Bump), token)
}

func withToken(r *http.Request) { r.Header.Set("Authorization", "Bearer "+listToken) }

// TestFlowList checks the order and the selection of flows.
func TestFlowList(t *testing.T) {
	h := newListServer(t, listToken).handler()
	for _, tt := range []struct {
		query   string
		listed  string // protocols, in order
		matched int
	}{
		{"", "udp udplite", 2},
		{"?sort=packets", "udp udplite", 2},
		{"?n=1", "udp", 2},
		{"?proto=udplite", "udplite", 1},
		{"?host=192.0.2.0/24&dport=53&from=inside", "udp udplite", 2},
		{"?src=203.0.113.1", "", 0},
	} {
		w := get(h, "/api/flows"+tt.query, withToken)
		var list FlowList
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d: %v: %s", tt.query, w.Code, err, w.Body)
		}
		var protocols []string
		for _, f := range list.Flows {
			protocols = append(protocols, f.Protocol)
		}
		if got := strings.Join(protocols, " "); got != tt.listed || list.Matched != tt.matched {
			t.Errorf("%s: %q of %d, want %q of %d", tt.query, got, list.Matched, tt.listed, tt.matched)
		}
		if !strings.Contains(w.Body.String(), `"flows":[`) {
			t.Errorf("%s: %s", tt.query, w.Body)
		}
	}
}

// TestListErrors checks that a list requires a token and valid parameters, and that only one
// list is made at a time.
func TestListErrors(t *testing.T) {
	s := newListServer(t, listToken)
	h := s.handler()
	for query, want := range map[string]string{
		"?proto=udpp": `--proto: "udpp" is not a protocol; did you mean "udp"?`, "?n=0": "n: want a number of 1 to 1000", "?n=1001": "n: want", "?sort=size": "--sort:", "?colour=red": "--colour:",
	} {
		if w := get(h, "/api/flows"+query, withToken); w.Code != http.StatusBadRequest || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("%s: %d: %s, want %s", query, w.Code, w.Body, want)
		}
	}
	if w := get(h, "/api/flows"); w.Code != http.StatusUnauthorized {
		t.Errorf("without the token: %d", w.Code)
	}
	if w := get(newListServer(t, "").handler(), "/api/flows", withToken); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "status.token_file") {
		t.Errorf("on a server without a token: %d: %s", w.Code, w.Body)
	}
	s.listing <- struct{}{}
	if w := get(h, "/api/flows", withToken); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("during another list: %d", w.Code)
	}
	<-s.listing
	if w := get(h, "/api/flows", withToken); w.Code != http.StatusOK {
		t.Errorf("after that list: %d", w.Code)
	}
}

// TestWaitingList checks the lists of incomplete datagrams and of sources.
func TestWaitingList(t *testing.T) {
	h := newListServer(t, listToken).handler()
	var waiting WaitingList
	w := get(h, "/api/waiting?from=inside", withToken)
	if err := json.Unmarshal(w.Body.Bytes(), &waiting); err != nil || w.Code != http.StatusOK || len(waiting.Waiting) != 1 {
		t.Fatalf("%d: %v: %s", w.Code, err, w.Body)
	}
	if d := waiting.Waiting[0]; d.Src != client.Addr() || d.Fragments != 2 || len(d.Missing) != 1 || d.Missing[0] != "2896-" {
		t.Errorf("%+v", d)
	}
	if w := get(h, "/api/waiting?from=outside", withToken); strings.TrimSpace(w.Body.String()) != `{"waiting":[]}` {
		t.Errorf("%s", w.Body)
	}
	var sources SourceList
	w = get(h, "/api/sources", withToken)
	if err := json.Unmarshal(w.Body.Bytes(), &sources); err != nil || len(sources.Sources) != 1 || sources.Sources[0].Src != "192.0.2.0/24" || sources.Sources[0].Datagrams != 1 {
		t.Errorf("%v: %s", err, w.Body)
	}
	for _, path := range []string{"/api/waiting", "/api/sources"} {
		if w := get(newListServer(t, "").handler(), path); w.Code != http.StatusForbidden {
			t.Errorf("%s on a server without a token: %d", path, w.Code)
		}
	}
}
