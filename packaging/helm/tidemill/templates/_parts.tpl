{{- define "tidemill.labels" -}}
app.kubernetes.io/name: tidemill
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tidemill.selector" -}}
app.kubernetes.io/name: tidemill
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidemill.name" -}}
{{- if contains "tidemill" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-tidemill{{ end }}
{{- end }}

{{- define "tidemill.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-slim" .Chart.AppVersion) }}
{{- end }}

{{- define "tidemill.secret" -}}
{{- if .Values.token.existingSecret }}{{ .Values.token.existingSecret }}
{{- else if .Values.token.value }}{{ include "tidemill.name" . }}-token
{{- else }}{{ fail "a token is needed: set token.value (openssl rand -hex 32), or token.existingSecret to a Secret with the key `token`" }}
{{- end }}
{{- end }}

{{- define "tidemill.master" -}}
http://{{ include "tidemill.name" . }}-master:{{ .Values.master.port }}
{{- end }}

{{- define "tidemill.state" -}}
{{ .Values.state.url | default "file:///var/lib/tidemill/state" }}
{{- end }}

{{- define "tidemill.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tidemill.container" -}}
image: {{ include "tidemill.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "tidemill.token" -}}
- name: TIDEMILL_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "tidemill.secret" . }}
      key: token
{{- end }}

{{- define "tidemill.env" -}}
{{ include "tidemill.token" . }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidemill.stateMount" -}}
{{- if not .Values.state.url }}
- name: state
  mountPath: /var/lib/tidemill/state
{{- end }}
{{- end }}

{{- define "tidemill.stateVolume" -}}
{{- if not .Values.state.url }}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.state.claim.existing | default (printf "%s-state" (include "tidemill.name" .)) }}
{{- end }}
{{- end }}

{{- define "tidemill.placed" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
