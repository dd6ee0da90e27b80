{{/*
The environment of one process. Argument: dict root component.
The watcher is given Temporal's and the tracing's settings and the log level only; it has no use for the backends' credentials.
*/}}
{{- define "plattr.environment" -}}
- name: METRICS_PORT
  value: {{ .root.Values.metrics.port | quote }}
- name: LEASE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if eq .component "watcher" }}
- name: LEADER_ELECTION
  value: "true"
{{- end }}
{{- $isWorker := eq .component "worker" }}
{{- range $name, $value := .root.Values.settings }}
{{- if or $isWorker (hasPrefix "TEMPORAL_" $name) (hasPrefix "OTEL_" $name) (eq "LOG_LEVEL" $name) }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- range $name, $secret := .root.Values.secrets }}
{{- if or $isWorker (hasPrefix "TEMPORAL_" $name) (hasPrefix "OTEL_" $name) }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret.name }}
      key: {{ $secret.key }}
{{- end }}
{{- end }}
{{- with (index .root.Values .component).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What values.schema.json cannot say by name: of two ways to sign in, one is needed. The worker says the same. */}}
{{- define "plattr.checkSettings" -}}
{{- $given := merge (dict) .Values.settings .Values.secrets }}
{{- range $name, $_ := .Values.settings }}
{{- if hasKey $.Values.secrets $name }}
{{- fail (printf "cannot render: setting %s: it is given twice, in settings and in secrets; remove one" $name) }}
{{- end }}
{{- end }}
{{- if not (or (hasKey $given "DB_ADMIN_URL") (hasKey $given "DB_SECRET_ARN")) }}
{{- fail "cannot render: setting DB_ADMIN_URL: neither secrets.DB_ADMIN_URL nor settings.DB_SECRET_ARN is set; see docs/installing.md" }}
{{- end }}
{{- $client := and (hasKey $given "KEYCLOAK_CLIENT_ID") (hasKey $given "KEYCLOAK_CLIENT_SECRET") }}
{{- $admin := and (hasKey $given "KEYCLOAK_ADMIN_USER") (hasKey $given "KEYCLOAK_ADMIN_PASSWORD") }}
{{- if not (or $client $admin) }}
{{- fail "cannot render: setting KEYCLOAK_CLIENT_ID: needs KEYCLOAK_CLIENT_ID and secrets.KEYCLOAK_CLIENT_SECRET, or KEYCLOAK_ADMIN_USER and secrets.KEYCLOAK_ADMIN_PASSWORD; see docs/installing.md" }}
{{- end }}
{{- end }}
