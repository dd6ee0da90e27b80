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
  value: {{ ternary (toJson $value) (toString $value) (or (kindIs "map" $value) (kindIs "slice" $value)) | quote }}
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

{{/* What values.schema.json cannot say by name: what is needed together, or of two ways to sign in. */}}
{{- define "plattr.checkSettings" -}}
{{- $given := merge (dict) .Values.settings .Values.secrets }}
{{- range $name, $_ := .Values.settings }}
{{- if hasKey $.Values.secrets $name }}
{{- fail (printf "cannot render: setting %s: it is given twice, in settings and in secrets; remove one" $name) }}
{{- end }}
{{- end }}
{{- range $pair := list (list "TEMPORAL_TLS_CLIENT_CERT_DATA" "TEMPORAL_TLS_CLIENT_KEY_DATA") (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") }}
{{- if ne (hasKey $given (first $pair)) (hasKey $given (last $pair)) }}
{{- fail (printf "cannot render: secrets.%s and secrets.%s: only one of the two is given; give both, or neither" (first $pair) (last $pair)) }}
{{- end }}
{{- end }}
{{- range $component := list "worker" "watcher" }}
{{- $account := (index $.Values $component).serviceAccount }}
{{- if not (or $account.create $account.name) }}
{{- fail (printf "cannot render: %s.serviceAccount.name: with create: false it is needed; name the account that is there" $component) }}
{{- end }}
{{- end }}
{{- $longest := include "plattr.component" (dict "root" . "component" "watcher") }}
{{- if gt (len $longest) 63 }}
{{- fail (printf "cannot render: release name %s: %s, as a Service would be called, has %d characters, and Kubernetes takes 63; choose a shorter one" .Release.Name $longest (len $longest)) }}
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
