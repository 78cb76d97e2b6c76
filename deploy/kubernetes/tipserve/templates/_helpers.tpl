{{- define "tipserve.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "tipserve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tipserve.labels" -}}
{{ include "tipserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tipserve.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ default (printf "%s-cpu" .Chart.AppVersion) .Values.image.tag }}{{ end }}
{{- end }}

{{- define "tipserve.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "tipserve.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* Every setting as the environment has it. Whole numbers are written out: YAML's are floats here. */}}
{{- define "tipserve.environment" -}}
{{- $own := dict "listen" "0.0.0.0:50051" "metrics_listen" "0.0.0.0:9090" "expose_metrics" "true" "bundle" "/bundle" "store" (required "store.url is needed: a bucket that all replicas share, such as s3://models/tipserve" .Values.store.url) }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $own "tls_cert" "/tls/tls.crt" }}
{{- $_ := set $own "tls_key" "/tls/tls.key" }}
{{- if .Values.tls.clients }}
{{- $_ := set $own "tls_client_ca" "/tls/ca.crt" }}
{{- end }}
{{- else if .Values.tls.clients }}
{{- fail "tls.clients needs tls.existingSecret" }}
{{- else if .Values.insecure }}
{{- $_ := set $own "insecure" "true" }}
{{- else }}
{{- fail "the API would be in the open: set tls.existingSecret, or insecure=true if a mesh encrypts and authenticates calls (a network policy does neither)" }}
{{- end }}
{{- if .Values.tokens.existingSecret }}
{{- $_ := set $own "tokens" "/tokens/tokens.toml" }}
{{- end }}
{{- range $key, $value := merge $own .Values.config }}
TIPSERVE_{{ upper $key }}: {{ if kindIs "float64" $value }}{{ if eq (float64 (int64 $value)) $value }}{{ int64 $value | toString | quote }}{{ else }}{{ toString $value | quote }}{{ end }}{{ else }}{{ toString $value | quote }}{{ end }}
{{- end }}
{{- end }}
