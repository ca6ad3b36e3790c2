{{/*
Objects beside a Pod. Each takes what the parts of a Pod take, and
  selector  the labels of the Pod
*/}}

{{- define "keyward-lib.networkPolicy" -}}
{{- $policy := .values.networkPolicy -}}
{{- if $policy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "keyward-lib.objectName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "keyward-lib.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- toYaml .selector | nindent 6 }}
  policyTypes: {{ ternary "[Ingress, Egress]" "[Ingress]" (not (empty $policy.egress)) }}
  ingress:
    - ports: [{ port: {{ .values.ports.proxy }}, protocol: TCP }]
      {{- with $policy.clients }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    - ports: [{ port: {{ .values.ports.ops }}, protocol: TCP }]
      {{- with $policy.monitoring }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- with $policy.extraIngress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $policy.egress }}
  egress:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "keyward-lib.podMonitor" -}}
{{- if .values.podMonitor.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "keyward-lib.objectName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "keyward-lib.labels" . | nindent 4 }}
    {{- with .values.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  jobLabel: app.kubernetes.io/name
  selector:
    matchLabels:
      {{- toYaml .selector | nindent 6 }}
  podMetricsEndpoints:
    - port: kw-ops
      path: /metrics
      {{- include "keyward-lib.endpoint" .values.podMonitor | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "keyward-lib.endpoint" -}}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
