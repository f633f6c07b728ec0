{{- define "fragwall.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fragwall.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/* The first init container, a sidecar: the traffic of all other containers is filtered
from the first packet. */}}
{{- define "fragwall.sidecar" -}}
name: fragwall
image: {{ include "fragwall.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always
args: [sidecar, -c, /etc/fragwall/fragwall.toml, --nic, {{ .Values.nic | quote }}, --watch-config]
securityContext:
  runAsUser: 0
  runAsGroup: 0
  runAsNonRoot: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN{{ if .Values.fastPath.enabled }}, BPF{{ end }}]
startupProbe:
  exec:
    command: [/usr/bin/fragwall, status, -c, /etc/fragwall/fragwall.toml]
  periodSeconds: 1
  failureThreshold: 30
livenessProbe:
  exec:
    command: [/usr/bin/fragwall, status, -c, /etc/fragwall/fragwall.toml]
  timeoutSeconds: 5
resources:
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.tunResource }}
{{- $resources = merge $resources (dict "limits" (dict .Values.tunResource 1)) }}
{{- end }}
{{- toYaml $resources | nindent 2 }}
volumeMounts:
  - {name: fragwall-rules, mountPath: /etc/fragwall, readOnly: true}
  - {name: fragwall-run, mountPath: /run}
  - {name: fragwall-run, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, subPath: no-token, readOnly: true}
  {{- if not .Values.tunResource }}
  - {name: dev-net-tun, mountPath: /dev/net/tun}
  {{- end }}
{{- end }}
