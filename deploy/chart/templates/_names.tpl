{{/* `plattr` when the release is called so, else `{release}-plattr`. One release a cluster: see plattr.checkAlone. */}}
{{- define "plattr.name" -}}
{{- if contains "plattr" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-plattr{{ end }}
{{- end }}

{{/* Argument: dict root component. */}}
{{- define "plattr.component" -}}
{{ include "plattr.name" .root }}-{{ .component }}
{{- end }}

{{/* What selects pods; immutable in a Deployment, so nothing that changes with a version. */}}
{{- define "plattr.selector" -}}
app.kubernetes.io/name: plattr
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "plattr.labels" -}}
{{ include "plattr.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "plattr.account" -}}
{{- $own := (index .root.Values .component).serviceAccount -}}
{{ $own.name | default (include "plattr.component" .) }}
{{- end }}

{{- define "plattr.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/*
Each release keeps the claims in its own namespace, and each acts on every object of the cluster: two would give
one schema, bucket or realm to two objects. So the chart looks for another's ClusterRole, which only a release has.
*/}}
{{- define "plattr.checkAlone" -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $release := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- $isPlattr := eq (index (.metadata.labels | default dict) "app.kubernetes.io/name" | default "") "plattr" }}
{{- if and $isPlattr $release (ne (printf "%s/%s" $namespace $release) (printf "%s/%s" $.Release.Namespace $.Release.Name)) }}
{{- fail (printf "cannot render: ClusterRole %s in the cluster is of release %s in namespace %s, and two releases would give out the same names from two claim stores; uninstall that one first, or delete the ClusterRole if it is gone" .metadata.name $release $namespace) }}
{{- end }}
{{- end }}
{{- end }}
