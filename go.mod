module github.com/cluster-api-provider-libvirt/cluster-api-provider-libvirt

go 1.26.0
