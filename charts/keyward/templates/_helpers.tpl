{{- define "keyward.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "keyward.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keyward.labels" -}}
{{ include "keyward.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: gateway
app.kubernetes.io/part-of: keyward
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keyward.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "keyward.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The claim that the chart makes; empty when it makes none. */}}
{{- define "keyward.claim" -}}
{{- if and (eq .Values.keyStore.type "sqlite") .Values.persistence.enabled (not .Values.keyStore.sqlite.existingClaim) -}}
{{ include "keyward.fullname" . }}-keys
{{- end -}}
{{- end -}}

{{- define "keyward.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}true{{ end -}}
{{- end -}}

{{/* What only a look at several values can tell. */}}
{{- define "keyward.check" -}}
{{- $v := .Values -}}
{{- if and (eq $v.keyStore.type "sqlite") $v.autoscaling.enabled }}{{ fail "autoscaling.enabled: the database of sqlite serves one Pod; use keyStore.type: postgres" }}{{ end -}}
{{- if and (eq $v.keyStore.type "sqlite") (gt (int $v.replicaCount) 1) }}{{ fail "replicaCount: the database of sqlite serves one Pod; set it to 1, or use keyStore.type: postgres" }}{{ end -}}
{{- if ge (add (int $v.shutdown.delaySeconds) (int $v.shutdown.drainSeconds)) (int $v.terminationGracePeriodSeconds) }}{{ fail "terminationGracePeriodSeconds: it must be more than shutdown.delaySeconds and shutdown.drainSeconds together" }}{{ end -}}
{{- if and $v.podMonitor.enabled $v.serviceMonitor.enabled }}{{ fail "serviceMonitor.enabled: podMonitor.enabled is true as well; each Pod would be scraped twice" }}{{ end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}{{ fail "ingress.hosts: name the hosts that the Ingress is for" }}{{ end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}{{ fail "httpRoute.parentRefs: name the Gateway that serves the route" }}{{ end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}{{ fail "autoscaling.minReplicas: it is more than autoscaling.maxReplicas" }}{{ end -}}
{{- if and $v.autoscaling.enabled (not (($v.resources).requests).cpu) }}{{ fail "resources.requests.cpu: autoscaling needs it" }}{{ end -}}
{{- end -}}
