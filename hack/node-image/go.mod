module github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt/hack/node-image

go 1.26.0
