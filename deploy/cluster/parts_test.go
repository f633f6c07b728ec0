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

// partVariable has the test's program be a part of a test: in a container it is all
// that there is.
const partVariable = "FRAGWALL_TEST_PART"

const (
	partInside  = "inside"  // the tests in the namespaces
	partPause   = "pause"   // holds the pod's network
	partEcho    = "echo"    // answers what it gets by UDP
	partAttempt = "attempt" // looks for a way round the sidecar
	partAsk     = "ask"     // asks the server, and fails where it does not answer
	partScrape  = "scrape"  // prints the sidecar's metrics, as Prometheus asks for them
)

// token is that of the sidecar's status server.
const token = "a-token-of-tests"

// Ports of the server, of which the rules accept one.
const (
	echoPort  = 5300
	otherPort = 5301
)

func part() string { return os.Getenv(partVariable) }

// play is a part other than that of the tests, and returns whether it was one, and
// how it went.
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

// echo sends back what comes.
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

// ask sends a datagram, and waits for it to come back.
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
		err = errors.New("another answer than the question")
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

// attempt succeeds where each way round the sidecar is shut.
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
