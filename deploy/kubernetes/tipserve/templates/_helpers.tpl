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

{{- define "tipserve.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "tipserve.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* Every setting as the environment has it. Whole numbers are written out: YAML's are floats here. */}}
{{- define "tipserve.environment" -}}
{{- $own := dict "listen" "0.0.0.0:50051" "metrics_listen" "0.0.0.0:9090" "bundle" "/bundle" "store" (required "store.url is needed: a bucket that all replicas share, such as s3://models/tipserve" .Values.store.url) }}
{{- range $key, $value := merge $own .Values.config }}
TIPSERVE_{{ upper $key }}: {{ if kindIs "float64" $value }}{{ if eq (float64 (int64 $value)) $value }}{{ int64 $value | toString | quote }}{{ else }}{{ toString $value | quote }}{{ end }}{{ else }}{{ toString $value | quote }}{{ end }}
{{- end }}
{{- end }}
