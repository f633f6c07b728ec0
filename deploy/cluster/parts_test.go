package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// partVariable names the part of a test that the test binary runs instead of the tests. In a
// container, the test binary is the only program.
const partVariable = "FRAGWALL_TEST_PART"

const (
	partInside  = "inside"  // runs TestContainersInside in the namespaces
	partPause   = "pause"   // keeps the pod's network namespace
	partEcho    = "echo"    // answers UDP datagrams with the same contents
	partAttempt = "attempt" // tries to bypass the sidecar
	partAsk     = "ask"     // sends a datagram to the server; fails if there is no answer
	partScrape  = "scrape"  // prints the sidecar's metrics, requested as Prometheus does
)

// token is the token of the sidecar's status server.
const token = "a-token-of-tests"

// Ports of the server. The rules accept one of them.
const (
	echoPort  = 5300
	otherPort = 5301
)

func part() string { return os.Getenv(partVariable) }

// play runs the part that the environment names, except partInside. It reports whether there was
// one, and returns its error.
func play() (played bool, err error) {
	switch part() {
	case partPause:
		for {
			time.Sleep(time.Hour)
		}
	case partEcho:
		return true, echo()
	case partAttempt:
		return true, attempt()
	case partAsk:
		return true, ask()
	case partScrape:
		return true, scrape()
	}
	return false, nil
}

// echo sends each datagram back.
func echo() error {
	failed := make(chan error, 2)
	for _, port := range []int{echoPort, otherPort} {
		s, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		go func() {
			for b := make([]byte, 1<<16); ; {
				n, from, err := s.ReadFromUDP(b)
				if err == nil {
					_, err = s.WriteToUDP(b[:n], from)
				}
				if err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// ask sends a datagram and waits for the same datagram as the answer.
func ask() error {
	var port, size int
	if _, err := fmt.Sscan(os.Getenv("ARGUMENT"), &port, &size); err != nil {
		return err
	}
	s, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: port})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	question := bytes.Repeat([]byte("fragwall"), size/8)
	if _, err := s.Write(question); err != nil {
		return err
	}
	answer := make([]byte, 1<<16)
	n, err := s.Read(answer)
	if err == nil && !bytes.Equal(answer[:n], question) {
		err = errors.New("the answer differs from the question")
	}
	return err
}

// scrape prints the metrics.
func scrape() error {
	request, err := http.NewRequest(http.MethodGet, "http://"+os.Getenv("ARGUMENT")+"/metrics", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

// attempt returns an error if the container can bypass the sidecar.
func attempt() error {
	if _, err := net.InterfaceByName("fw-in"); err != nil {
		return fmt.Errorf("the sidecar does not run before this container: %w", err)
	}
	if s, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0); err == nil {
		syscall.Close(s)
		return errors.New("this container can send frames past the sidecar")
	}
	if err := syscall.Mknod("/tun", syscall.S_IFCHR|0o600, 10<<8|200); err == nil {
		return errors.New("this container can make /dev/net/tun")
	}
	if _, err := os.Stat("/dev/net/tun"); err == nil {
		return errors.New("this container has /dev/net/tun")
	}
	return nil
}
