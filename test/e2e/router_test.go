//go:build e2e

/*
Copyright 2026 The cluster-api-provider-libvirt Authors.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/internal/lab/privatehost"
)

// howTo is the content of a file as docs/how-to/bgp.md has its reader write it: the block after the file's path.
func howTo(path string) string {
	GinkgoHelper()
	page, err := os.ReadFile("../../docs/how-to/bgp.md")
	Expect(err).NotTo(HaveOccurred())
	_, rest, found := strings.Cut(string(page), "`"+path+"`:\n\n```\n")
	Expect(found).To(BeTrue(), "the page has no file %s", path)
	content, _, found := strings.Cut(rest, "```\n")
	Expect(found).To(BeTrue(), "the file %s has no end", path)
	return content
}

// hostRouter is a host's router: BIRD with the how-to's configuration.
type hostRouter struct {
	host                  *privatehost.Host
	config, socket, ident string
	command               *exec.Cmd
}

// newRouter starts a router that runs until the end of the container.
func newRouter(host *privatehost.Host) *hostRouter {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	r := &hostRouter{host: host, config: filepath.Join(dir, "bird.conf"), socket: filepath.Join(dir, "bird.ctl"), ident: filepath.Join(dir, "bird.pid")}
	Expect(os.WriteFile(r.config, []byte(howTo("/etc/bird/bird.conf")), 0o600)).To(Succeed())
	DeferCleanup(r.stop)
	r.start()
	return r
}

// start runs the router as the host's service manager would.
func (r *hostRouter) start() {
	GinkgoHelper()
	r.command = r.host.Command(context.Background(), "/usr/sbin/bird", "-f", "-c", r.config, "-s", r.socket, "-P", r.ident)
	r.command.Stdout, r.command.Stderr = GinkgoWriter, GinkgoWriter
	Expect(r.command.Start()).To(Succeed())
	Eventually(func() error {
		return r.host.Command(context.Background(), "/usr/sbin/birdc", "-s", r.socket, "show", "status").Run()
	}).
		WithTimeout(20 * time.Second).Should(Succeed())
}

func (r *hostRouter) stop() {
	GinkgoHelper()
	if r.command == nil {
		return
	}
	Expect(r.command.Process.Signal(syscall.SIGTERM)).To(Succeed())
	ended := make(chan error, 1)
	go func(command *exec.Cmd) { ended <- command.Wait() }(r.command)
	r.command = nil
	Eventually(ended).WithTimeout(20 * time.Second).Should(Receive(BeNil()))
}

// ask gives the router a command and returns what it says.
func (r *hostRouter) ask(ctx context.Context, words ...string) string {
	GinkgoHelper()
	output, err := r.host.Command(ctx, "/usr/sbin/birdc", append([]string{"-s", r.socket}, words...)...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
	return string(output)
}

// route is one of the host's.
type route struct {
	Destination string `json:"dst"`
	Gateway     string `json:"gateway"`
	Protocol    string `json:"protocol"`
}

// routesByBGP are the routes that the host has from its router.
func routesByBGP(ctx context.Context) []route {
	GinkgoHelper()
	return slices.DeleteFunc(routes(ctx, "show"), func(r route) bool { return r.Protocol != "bird" })
}

// routeTo is the way that the host's packets to an address go.
func routeTo(ctx context.Context, address string) route {
	GinkgoHelper()
	found := routes(ctx, "get", address)
	Expect(found).To(HaveLen(1))
	return found[0]
}

func routes(ctx context.Context, words ...string) []route {
	GinkgoHelper()
	output, err := lab.Host().Command(ctx, "ip", append([]string{"-json", "route"}, words...)...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s", output)
	var routes []route
	Expect(json.Unmarshal(output, &routes)).To(Succeed(), "%s", output)
	return routes
}

// watchRoute tells when the host learns a route to an address next, and when it loses one, until the spec is over.
func watchRoute(ctx context.Context, address string) (learned, withdrawn chan time.Time) {
	GinkgoHelper()
	monitor := lab.Host().Command(ctx, "ip", "monitor", "route")
	output, err := monitor.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(monitor.Start()).To(Succeed())
	learned, withdrawn = make(chan time.Time, 1), make(chan time.Time, 1)
	go func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if line, deleted := strings.CutPrefix(lines.Text(), "Deleted "); strings.HasPrefix(line, address+" ") {
				if deleted {
					once(withdrawn)
				} else {
					once(learned)
				}
			}
		}
		_ = monitor.Wait() // killed at the end of the spec
	}()
	return learned, withdrawn
}

// once tells the time, unless that was done already.
func once(step chan time.Time) {
	select {
	case step <- time.Now():
	default:
	}
}

// askFromHost asks the site at the ingress's own address, from the host itself.
func askFromHost(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listening, err := lab.Host().Forward(ctx, "127.0.0.1:0", net.JoinHostPort(ingressAddress, "80"))
	if err != nil {
		return "", err
	}
	return askBy(ctx, listening.String(), (&net.Dialer{}).DialContext)
}

// keepAsking asks the site from the host, one request after the other, until the context ends. What it returns waits for
// that, and tells when the last answer came.
func keepAsking(ctx context.Context) (last func() time.Time) {
	var answer time.Time
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			short, cancel := context.WithTimeout(ctx, time.Second)
			if _, err := askFromHost(short); err == nil {
				answer = time.Now()
			}
			cancel()
			time.Sleep(200 * time.Millisecond)
		}
	}()
	return func() time.Time {
		<-ended
		return answer
	}
}

// podSteps tell when the pods of a namespace were deleted, gone, and ready. Each has room for what one pod does.
type podSteps struct {
	deleted, gone, ready chan time.Time
}

// watchPods follows the pods of a namespace of the cluster until the spec is over.
func watchPods(ctx context.Context, namespace string) podSteps {
	GinkgoHelper()
	config, err := clientcmd.BuildConfigFromFlags("", lab.ClusterKubeconfig())
	Expect(err).NotTo(HaveOccurred())
	c, err := client.NewWithWatch(config, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	var before corev1.PodList
	Expect(c.List(ctx, &before, client.InNamespace(namespace))).To(Succeed())
	Expect(before.Items).To(HaveLen(1))
	watcher, err := c.Watch(ctx, &corev1.PodList{}, client.InNamespace(namespace), &client.ListOptions{
		Raw: &metav1.ListOptions{ResourceVersion: before.ResourceVersion},
	})
	Expect(err).NotTo(HaveOccurred())
	steps := podSteps{make(chan time.Time, 1), make(chan time.Time, 1), make(chan time.Time, 1)}
	go func() {
		defer watcher.Stop()
		for event := range watcher.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			switch {
			case !ok:
			case event.Type == watch.Deleted:
				once(steps.gone)
			case pod.DeletionTimestamp != nil:
				once(steps.deleted)
			case pod.UID != before.Items[0].UID && slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
				return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
			}):
				once(steps.ready)
			}
		}
	}()
	return steps
}
