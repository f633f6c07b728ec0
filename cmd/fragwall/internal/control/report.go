package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/report"
)

// Reporter gets a report from an instance. It also returns the report as received: JSON on one
// line.
type Reporter func(context.Context) (*report.Report, []byte, error)

// Reporter returns a reporter that asks an instance over its control socket.
func (i Instance) Reporter() (Reporter, error) {
	path, err := i.choose()
	if err != nil {
		return nil, err
	}
	return func(context.Context) (*report.Report, []byte, error) {
		var raw json.RawMessage
		if err := ask(path, RequestStatus, statusTimeout, &raw); err != nil {
			return nil, nil, err
		}
		r, err := decodeReport(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("socket %q: %w", path, err)
		}
		return r, append(raw, '\n'), nil
	}, nil
}

// OverHTTP returns a reporter that asks the status server at an address. The token "" means
// none.
func OverHTTP(address, token string) Reporter {
	return func(ctx context.Context) (*report.Report, []byte, error) {
		ctx, cancel := context.WithTimeout(ctx, statusTimeout)
		defer cancel()
		raw, err := get(ctx, address, token)
		if err != nil {
			return nil, nil, err
		}
		r, err := decodeReport(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("status of %s: %w", address, err)
		}
		return r, raw, nil
	}
}

// get returns the answer of the status server at an address.
func get(ctx context.Context, address, token string) ([]byte, error) {
	host, port, err := net.SplitHostPort(address)
	if host == "" {
		host = "127.0.0.1" // the default of status.listen
	}
	request, malformed := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/api/status", nil)
	if err != nil || malformed != nil {
		return nil, exit.Usagef("address %q: want a host and a port, such as 127.0.0.1:9477", address)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w: is fragwall running with this address in status.listen? With -c FILE, status uses the control socket", address, systemError(errors.Unwrap(err)))
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxReport))
	switch {
	case err != nil:
		return nil, fmt.Errorf("status of %s: %w", address, err)
	case response.StatusCode == http.StatusUnauthorized:
		wanted := "a token"
		if token != "" {
			wanted = "a different token"
		}
		return nil, fmt.Errorf("status of %s: it requires %s; name the file of its status.token_file with --token-file", address, wanted)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status of %s: %s", address, response.Status)
	}
	return raw, nil
}

// client uses no proxy and follows no redirect: the token is only for the address that the user
// gave.
var client = &http.Client{
	Transport:     &http.Transport{},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func decodeReport(raw []byte) (*report.Report, error) {
	var r report.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("not an answer from fragwall: %w", err)
	}
	return &r, nil
}
