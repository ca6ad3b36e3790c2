{{/*
Keyward's config: what the values decide, and `config` for the rest.
*/}}
{{- define "keyward-lib.config" -}}
{{- $v := .values -}}
{{- $native := and .sidecar (include "keyward-lib.isNative" .) -}}
{{- $timeouts := dict "drain_delay" (ternary "0s" (printf "%ds" (int $v.shutdown.delaySeconds)) (not (empty $native))) "drain" (printf "%ds" (int $v.shutdown.drainSeconds)) -}}
{{- $proxy := dict "listen" (printf "0.0.0.0:%d" (int $v.ports.proxy)) "upstream" $v.upstream "timeouts" $timeouts -}}
{{- if $v.tls.existingSecret -}}
  {{- $tls := dict "certificate" "/etc/keyward/tls/tls.crt" "key" "/etc/keyward/tls/tls.key" -}}
  {{- if $v.tls.clientCa }}{{ $_ := set $tls "client_ca" "/etc/keyward/tls/ca.crt" }}{{ end -}}
  {{- $_ := set $proxy "tls" $tls -}}
{{- end -}}
{{- $keys := dict "pepper" (dict "file" "/etc/keyward/pepper/pepper") -}}
{{- $ops := dict "listen" (printf "0.0.0.0:%d" (int $v.ports.ops)) -}}
{{- $base := dict "version" 1 "proxy" $proxy "keys" $keys "ops" $ops "log" (dict "format" "json") -}}
{{- if eq $v.keyStore.type "secret" }}{{ $_ := set $base "store" "file:/etc/keyward/records" }}{{ end -}}
{{- if eq $v.keyStore.type "sqlite" }}{{ $_ := set $base "store" "sqlite:/var/lib/keyward/keyward.db" }}{{ end -}}
{{- mergeOverwrite $base (deepCopy $v.config) | toYaml -}}
{{- end -}}

{{- define "keyward-lib.configMapName" -}}
{{- .values.existingConfigMap | default (include "keyward-lib.objectName" .) -}}
{{- end -}}

{{/* The ConfigMap with the config; nothing when there is one already. */}}
{{- define "keyward-lib.configMap" -}}
{{- include "keyward-lib.check" . -}}
{{- if not .values.existingConfigMap -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "keyward-lib.configMapName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "keyward-lib.labels" . | nindent 4 }}
data:
  keyward.yaml: |
    # `keyward schema` describes every option; where KEYWARD_STORE is set, it names the store.
    {{- include "keyward-lib.config" . | nindent 4 }}
  {{- if eq .values.keyStore.type "sqlite" }}
  no-keys.csv: |
    value,name
  {{- end }}
{{- end -}}
{{- end -}}
