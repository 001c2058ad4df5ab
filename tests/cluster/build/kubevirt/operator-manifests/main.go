// Command operator-manifests prints, as a YAML stream, what brings virt-operator up: the KubeVirt
// CRD, the priority class, its RBAC and its Deployment. The objects come from KubeVirt's own
// generators, so they are those of the version in go.mod; only the image names are ours.
//
// The namespace and the KubeVirt object itself are not printed: they are decided by the caller.
package main

import (
	"flag"
	"log"
	"os"

	corev1 "k8s.io/api/core/v1"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/rbac"
	"kubevirt.io/kubevirt/tools/util"
)

func main() {
	namespace := flag.String("namespace", "kubevirt", "namespace of virt-operator")
	version := flag.String("version", "", "KubeVirt's version, with its v")
	control := flag.String("control-image", "", "image of virt-operator, virt-api and virt-controller")
	node := flag.String("node-image", "", "image of virt-handler and virt-launcher")
	flag.Parse()
	if *version == "" || *control == "" || *node == "" {
		log.Fatal("-version, -control-image and -node-image are required")
	}

	crd, err := components.NewKubeVirtCrd()
	if err != nil {
		log.Fatal(err)
	}
	// The parts that we do not run (export, template, guest console, … images) get no name: virt-operator
	// then derives one that it never pulls.
	const none = ""
	operator := components.NewOperatorDeployment(*namespace, none, none, *version, "2", *version, none,
		*control, *control, *node, *node, none, none, none, none, none, none, none, none,
		*control, corev1.PullIfNotPresent)

	objects := append([]any{crd, components.NewKubeVirtPriorityClassCR()}, rbac.GetAllOperator(*namespace)...)
	for _, object := range append(objects, operator) {
		if err := util.MarshallObject(object, os.Stdout); err != nil {
			log.Fatal(err)
		}
	}
}
