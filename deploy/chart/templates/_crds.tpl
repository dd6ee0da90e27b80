{{/*
Helm makes what lies in crds/ once and never touches it again (docs/decisions). A worker whose CRDs are older than
itself would lose fields: the API server prunes what a schema does not know. So the chart looks at the cluster's.
An install makes one that is missing, an upgrade does not. Without a cluster (helm template) nothing is found at all,
not even the namespace.
*/}}
{{- define "plattr.checkCrds" -}}
{{- if .Values.checkCrds }}
{{- range $path, $_ := .Files.Glob "crds/*.yaml" }}
{{- $ours := $.Files.Get $path | fromYaml }}
{{- $live := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $ours.metadata.name }}
{{- if and $.Release.IsUpgrade (empty $live) (lookup "v1" "Namespace" "" $.Release.Namespace) }}
{{- fail (printf "cannot render: CustomResourceDefinition %s is not in the cluster, and an upgrade makes none; run `helm show crds CHART | kubectl apply --server-side --force-conflicts -f -` first" $ours.metadata.name) }}
{{- end }}
{{- range $version := ternary $ours.spec.versions list (not (empty $live)) }}
{{- $found := dict }}
{{- range $live.spec.versions }}
{{- if eq .name $version.name }}{{ $_ := set $found "schema" .schema.openAPIV3Schema }}{{ end }}
{{- end }}
{{- $missing := include "plattr.missingFields" (dict "ours" $version.schema.openAPIV3Schema "live" ($found.schema | default dict) "path" "") }}
{{- if $missing }}
{{- fail (printf "cannot render: CustomResourceDefinition %s in the cluster is older than this chart and lacks%s; run `helm show crds CHART | kubectl apply --server-side --force-conflicts -f -` first" $ours.metadata.name $missing) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The fields of one schema that another has not. Argument: dict ours live path. */}}
{{- define "plattr.missingFields" -}}
{{- $liveFields := .live.properties | default dict }}
{{- $path := .path }}
{{- range $name, $field := .ours.properties }}
{{- if hasKey $liveFields $name }}
{{- include "plattr.missingFields" (dict "ours" $field "live" (index $liveFields $name) "path" (printf "%s.%s" $path $name)) }}
{{- else }} {{ $path }}.{{ $name }}
{{- end }}
{{- end }}
{{- with .ours.items }}
{{- include "plattr.missingFields" (dict "ours" . "live" ($.live.items | default dict) "path" (printf "%s[]" $path)) }}
{{- end }}
{{- end }}
