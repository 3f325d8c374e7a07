{{- define "disp.name" -}}
{{- printf "%s-disp" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "disp.labels" -}}
app.kubernetes.io/name: disp
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "disp.selector" -}}
app.kubernetes.io/name: disp
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "disp.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- define "disp.hasBroker" -}}
{{- if or .Values.broker.url .Values.broker.inSecret }}true{{ end -}}
{{- end -}}

{{- define "disp.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "disp.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "disp.environment" -}}
- {name: DISP_DATABASE_URL_FILE, value: /run/secrets/disp/database-url}
- {name: DISP_ARTIFACTS_URL, value: {{ .Values.artifacts.url | quote }}}
- {name: DISP_S3_ACCESS_KEY_ID_FILE, value: /run/secrets/disp/s3-access-key}
- {name: DISP_S3_SECRET_ACCESS_KEY_FILE, value: /run/secrets/disp/s3-secret-key}
- {name: DISP_S3_REGION, value: {{ .Values.artifacts.region | quote }}}
{{- with .Values.artifacts.endpoint }}
- {name: DISP_S3_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .Values.artifacts.publicEndpoint }}
- {name: DISP_S3_PUBLIC_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if .Values.broker.inSecret }}
- {name: DISP_BROKER_URL_FILE, value: /run/secrets/disp/broker-url}
{{- else if .Values.broker.url }}
- {name: DISP_BROKER_URL, value: {{ .Values.broker.url | quote }}}
{{- end }}
{{- with .Values.telemetry.otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "disp.secretMount" -}}
- {name: secrets, mountPath: /run/secrets/disp, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "disp.secretVolumes" -}}
- name: secrets
  secret: {secretName: {{ .Values.secret.name | quote }}, defaultMode: 0440}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 256Mi}
{{- end -}}
