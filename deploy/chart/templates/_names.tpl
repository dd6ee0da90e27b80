{{/* `plattr` when the release is called so, else `{release}-plattr`: releases in one cluster stay apart. */}}
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
