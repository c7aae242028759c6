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

// Command images writes the container images that a node image carries, as one OCI
// layout in a tar: programs from the build's bin directory, under the names that
// kubeadm and the manifests ask for.
//
//	images -bin DIR -netbase TAR -calico-filesystem DIR -out TAR NAME…
//
// NAME are full image names; the part after the last slash and before the tag says
// what goes in.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// sources are the places that images are made from.
type sources struct {
	bin              string
	calicoFilesystem string
	calicoConfd      string
	netbase          *layer
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var from sources
	flag.StringVar(&from.bin, "bin", "", "directory with the programs")
	flag.StringVar(&from.calicoFilesystem, "calico-filesystem", "", "directory node/filesystem of Calico's module")
	flag.StringVar(&from.calicoConfd, "calico-confd", "", "directory with the templates of BIRD's configuration")
	netbase := flag.String("netbase", "", "uncompressed tar of a small Debian with the network tools")
	out := flag.String("out", "", "the archive to write")
	flag.Parse()
	if from.bin == "" || from.calicoFilesystem == "" || from.calicoConfd == "" || *netbase == "" || *out == "" || flag.NArg() == 0 {
		return errors.New("-bin, -calico-filesystem, -calico-confd, -netbase, -out and the names of images are required")
	}

	target, err := os.Create(*out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	archive := newArchive(target)

	base, err := os.Open(*netbase)
	if err != nil {
		return err
	}
	defer base.Close()
	if from.netbase, err = archive.addLayer(base); err != nil {
		return fmt.Errorf("adding %s: %w", *netbase, err)
	}
	for _, name := range flag.Args() {
		img, err := imageFor(name, from)
		if err != nil {
			return err
		}
		if err := archive.addImage(img); err != nil {
			return fmt.Errorf("writing image %s: %w", name, err)
		}
	}
	return archive.close()
}

// searchPath is where programs are looked for in every image.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// imageFor says what the image of a name consists of.
func imageFor(name string, from sources) (image, error) {
	repository, _, tagged := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	if !tagged {
		return image{}, fmt.Errorf("image %q has no tag", name)
	}
	program := func(source, target string) file {
		return file{path: strings.TrimPrefix(target, "/"), source: filepath.Join(from.bin, source)}
	}
	img := image{name: name, env: []string{searchPath}}

	switch {
	case strings.Contains(name, "/calico/node:"):
		// The path of the binary avoids /bin, which is a link in Debian.
		files, err := tree(from.calicoFilesystem, "")
		if err != nil {
			return image{}, err
		}
		templates, err := tree(from.calicoConfd, "etc/calico/confd")
		if err != nil {
			return image{}, err
		}
		img.base = from.netbase
		img.files = append(append(files, templates...), program("calico-node", "/usr/bin/calico-node"))
		img.cmd = []string{"start_runit"}
		img.env = append(img.env, "SVDIR=/etc/service/enabled")
	case strings.Contains(name, "/calico/cni:"):
		// calico-ipam is the same program under another name.
		img.files = []file{
			program("calico-cni-install", "/opt/cni/bin/install"),
			program("calico-cni", "/opt/cni/bin/calico"),
			program("calico-cni", "/opt/cni/bin/calico-ipam"),
			program("cni-bandwidth", "/opt/cni/bin/bandwidth"),
			program("cni-loopback", "/opt/cni/bin/loopback"),
			program("cni-portmap", "/opt/cni/bin/portmap"),
		}
		img.cmd = []string{"/opt/cni/bin/install"}
	case strings.Contains(name, "/calico/kube-controllers:"):
		img.files = []file{
			program("calico-kube-controllers", "/usr/bin/kube-controllers"),
			program("calico-check-status", "/usr/bin/check-status"),
			{path: "status/status.json"},
			{path: "profiles/mem.pprof"},
			{path: "profiles/cpu.pprof"},
		}
		img.entrypoint = []string{"/usr/bin/kube-controllers"}
	case strings.Contains(name, "/metallb/"):
		img.files = []file{program("metallb-"+repository, "/"+repository)}
		img.entrypoint = []string{"/" + repository}
	case repository == "nginx":
		// With kubectl, by which a script learns what nginx is to lead to.
		img.base = from.netbase
		img.files = []file{program("kubectl", "/usr/local/bin/kubectl")}
		img.entrypoint = []string{"/usr/sbin/nginx"}
	case repository == "kube-proxy":
		img.base = from.netbase
		img.files = []file{program(repository, "/usr/local/bin/kube-proxy")}
		img.entrypoint = []string{"/usr/local/bin/kube-proxy"}
	case repository == "coredns", repository == "kube-vip", repository == "pause", repository == "netcheck":
		img.files = []file{program(repository, "/"+repository)}
		img.entrypoint = []string{"/" + repository}
	case repository == "etcd", strings.HasPrefix(repository, "kube-"):
		img.files = []file{program(repository, "/usr/local/bin/"+repository)}
		img.entrypoint = []string{"/usr/local/bin/" + repository}
	default:
		return image{}, fmt.Errorf("image %q: nothing is known about %s; say in imageFor what goes in", name, repository)
	}
	return img, nil
}

// tree returns Calico's files below a directory for its node image, in which they
// are under below. The path of sbin is that of Debian, where /sbin is a link.
func tree(root, below string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(source string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		target, err := filepath.Rel(root, source)
		if err != nil {
			return err
		}
		if strings.HasPrefix(target, "sbin/") {
			target = "usr/" + target
		}
		files = append(files, file{path: path.Join(below, target), source: source})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading Calico's files: %w", err)
	}
	return files, nil
}
