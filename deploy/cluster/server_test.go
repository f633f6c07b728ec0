package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

var (
	binaries = flag.String("binaries", "../../build/cluster", "directory of etcd, kube-apiserver, kube-controller-manager and kubectl")
	image    = flag.String("image", "", "image of fragwall in podman's store, for TestContainers")
	update   = flag.Bool("update", false, "write the golden files")
)

// cluster is a control plane without nodes, on the loopback interface.
type cluster struct {
	*kubernetes.Clientset
	kubeconfig string
	warnings   warnings
}

// TestMain starts one control plane for all tests, and stops it after them.
func TestMain(m *testing.M) {
	if played, err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} else if !played {
		flag.Parse()
		os.Exit(run(m))
	}
}

// shared is the control plane of all tests. It is nil in the process that TestContainers runs
// inside namespaces.
var shared *cluster

func run(m *testing.M) int {
	if part() == partInside {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "fragwall-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	if shared, err = start(ctx, &running, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// program runs one of the binaries until ctx is done, and writes its output to a file in dir.
func program(ctx context.Context, running *sync.WaitGroup, dir, name string, arguments ...string) (exited <-chan struct{}, err error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(filepath.Join(*binaries, name))
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, path, arguments...)
	command.Dir, command.Stdout, command.Stderr = dir, log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 20 * time.Second
	if err := command.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("%w: make test-cluster builds it", err)
	}
	done := make(chan struct{})
	running.Go(func() {
		_ = command.Wait() // the program was stopped
		log.Close()
		close(done)
	})
	return done, nil
}

// ports returns n free TCP ports of the loopback interface.
func ports(n int) (free []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all ports are chosen, so that they differ
		free = append(free, l.Addr().(*net.TCPAddr).Port)
	}
	return free, nil
}

// start runs etcd, the API server and the controllers that make pods. It returns when the server is
// ready.
func start(ctx context.Context, running *sync.WaitGroup, dir string) (*cluster, error) {
	port, err := ports(3)
	if err != nil {
		return nil, err
	}
	etcd, peer := fmt.Sprintf("http://127.0.0.1:%d", port[0]), fmt.Sprintf("http://127.0.0.1:%d", port[1])
	if _, err := program(ctx, running, dir, "etcd", "--data-dir", "etcd", "--unsafe-no-fsync",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return nil, err
	}

	token := rand.Text()
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(filepath.Join(dir, "accounts.key"), text, 0o600); err != nil {
		return nil, err
	}
	exited, err := program(ctx, running, dir, "kube-apiserver", "--etcd-servers", etcd,
		"--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(port[2]), "--cert-dir", "certificates",
		"--endpoint-reconciler-type", "none", "--allow-privileged", "--service-cluster-ip-range", "192.0.2.0/24",
		"--token-auth-file", "tokens", "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--service-account-issuer", "https://cluster.test", "--service-account-key-file", "accounts.key",
		"--service-account-signing-key-file", "accounts.key")
	if err != nil {
		return nil, err
	}

	c := &cluster{kubeconfig: filepath.Join(dir, "kubeconfig")}
	address := fmt.Sprintf("https://127.0.0.1:%d", port[2])
	config := &rest.Config{Host: address, BearerToken: token, WarningHandler: &c.warnings, QPS: -1}
	config.CAFile = filepath.Join(dir, "certificates", "apiserver.crt") // it is self-signed
	access := api.NewConfig()
	access.Clusters["c"] = &api.Cluster{Server: address, CertificateAuthority: config.CAFile}
	access.AuthInfos["admin"] = &api.AuthInfo{Token: token}
	access.Contexts["c"] = &api.Context{Cluster: "c", AuthInfo: "admin"}
	access.CurrentContext = "c"
	if err := clientcmd.WriteToFile(*access, c.kubeconfig); err != nil {
		return nil, err
	}
	if err := c.ready(ctx, dir, config, exited); err != nil {
		return nil, err
	}
	_, err = program(ctx, running, dir, "kube-controller-manager", "--kubeconfig", c.kubeconfig,
		"--leader-elect=false", "--secure-port", "0", "--service-account-private-key-file", "accounts.key",
		"--root-ca-file", config.CAFile, "--controllers", "deployment-controller,replicaset-controller,"+
			"statefulset-controller,daemonset-controller,job-controller,cronjob-controller,serviceaccount-controller,"+
			"root-ca-certificate-publisher-controller,namespace-controller,garbage-collector-controller")
	return c, err
}

// ready waits until the server is ready.
func (c *cluster) ready(ctx context.Context, dir string, config *rest.Config, exited <-chan struct{}) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		select {
		case <-exited:
			log, _ := os.ReadFile(filepath.Join(dir, "kube-apiserver.log"))
			return fmt.Errorf("kube-apiserver has ended:\n%s", log)
		case <-time.After(100 * time.Millisecond):
		}
		client, err := kubernetes.NewForConfig(config) // fails until the certificate exists
		if err == nil {
			_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		}
		if err == nil {
			c.Clientset = client
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kube-apiserver is not ready: %w", err)
		}
	}
}

// kubectl runs kubectl and returns its output.
func (c *cluster) kubectl(t *testing.T, stdin string, arguments ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(*binaries, "kubectl"), append([]string{"--kubeconfig", c.kubeconfig}, arguments...)...)
	command.Stdin = bytes.NewBufferString(stdin)
	said, err := command.CombinedOutput()
	return string(said), err
}

// warnings collects the server's warnings.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) HandleWarningHeader(code int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if code == 299 {
		w.text = append(w.text, text)
	}
}

// taken returns the warnings since the last call.
func (w *warnings) taken() (text []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text, w.text = w.text, nil
	return text
}
