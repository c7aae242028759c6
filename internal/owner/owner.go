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

// Package owner renders and reads the mark that everything of ours carries in libvirt: an element in the <metadata> of
// domains and networks that names the object it belongs to. What doesn't carry it, or carries another's, is never
// changed and never deleted.
package owner

import (
	"encoding/xml"
	"fmt"
)

// Namespace is the XML namespace of the mark. The version at its end changes when its meaning does.
const Namespace = "https://infrastructure.cluster.x-k8s.io/libvirt/owner/v1"

// Owner names the object in the management cluster that a domain or a network belongs to. The names survive a move to
// another management cluster; UIDs don't.
type Owner struct {
	// Kind is LibvirtMachine or LibvirtCluster.
	Kind string
	// Namespace and Name of the object.
	Namespace, Name string
	// Cluster is the name of the Cluster, in the same namespace.
	Cluster string
}

// String is the owner as messages name it.
func (o Owner) String() string {
	return fmt.Sprintf("%s %s/%s of cluster %s", o.Kind, o.Namespace, o.Name, o.Cluster)
}

type mark struct {
	XMLName   xml.Name `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/owner/v1 owner"`
	Kind      string   `xml:"kind,attr"`
	Namespace string   `xml:"namespace,attr"`
	Name      string   `xml:"name,attr"`
	Cluster   string   `xml:"cluster,attr"`
}

type escaped struct {
	XMLName   xml.Name `xml:"capl:owner"`
	Prefix    string   `xml:"xmlns:capl,attr"`
	Kind      string   `xml:"kind,attr"`
	Namespace string   `xml:"namespace,attr"`
	Name      string   `xml:"name,attr"`
	Cluster   string   `xml:"cluster,attr"`
}

// Render is the mark as the content of a <metadata> element. libvirt insists on a prefixed namespace.
func (o Owner) Render() string {
	data, err := xml.Marshal(escaped{
		Prefix: Namespace, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Cluster: o.Cluster,
	})
	if err != nil {
		// Four strings always marshal.
		panic(err)
	}
	return string(data)
}

// Of reads the mark from the XML of a domain or a network. It returns false when there is none.
func Of(document string) (Owner, bool) {
	var parsed struct {
		Metadata struct {
			Owner *mark `xml:"https://infrastructure.cluster.x-k8s.io/libvirt/owner/v1 owner"`
		} `xml:"metadata"`
	}
	if err := xml.Unmarshal([]byte(document), &parsed); err != nil || parsed.Metadata.Owner == nil {
		return Owner{}, false
	}
	m := parsed.Metadata.Owner
	return Owner{Kind: m.Kind, Namespace: m.Namespace, Name: m.Name, Cluster: m.Cluster}, true
}
