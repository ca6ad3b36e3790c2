{{/*
What only a look at several values can tell. Each message begins with the path of the value.
*/}}
{{- define "keyward-lib.check" -}}
{{- $v := .values -}}
{{- if not $v.image.repository }}{{ fail "image.repository: name the image that you built with deploy/Dockerfile and pushed" }}{{ end -}}
{{- if not $v.pepper.existingSecret }}{{ fail "pepper.existingSecret: name the Secret with the pepper (`keyward init` makes one; kubectl create secret generic keyward-pepper --from-file=pepper=keyward.pepper)" }}{{ end -}}
{{- if and (eq $v.keyStore.type "secret") (not $v.keyStore.secret.existingSecret) }}{{ fail "keyStore.secret.existingSecret: name the Secret with the records of keys (`keyward key create --record --output json`), or choose another keyStore.type" }}{{ end -}}
{{- if and (eq $v.keyStore.type "postgres") (not $v.keyStore.postgres.existingSecret) }}{{ fail "keyStore.postgres.existingSecret: name the Secret with the URL of the database" }}{{ end -}}
{{- if and (eq $v.keyStore.type "sqlite") (not (include "keyward-lib.claim" .)) }}{{ fail "keyStore.sqlite.existingClaim: name the claim that holds the database" }}{{ end -}}
{{- if and $v.tls.clientCa (not $v.tls.existingSecret) }}{{ fail "tls.clientCa: clients show certificates only to a port that speaks TLS: name tls.existingSecret" }}{{ end -}}
{{- if eq (int $v.ports.proxy) (int $v.ports.ops) }}{{ fail "ports.ops: it is the port of ports.proxy; choose another one" }}{{ end -}}
{{- if $v.existingConfigMap -}}
  {{- if $v.config }}{{ fail "config: it goes into a ConfigMap of the chart's, and existingConfigMap names another one; use one of them" }}{{ end -}}
{{- else -}}
  {{- if not $v.upstream }}{{ fail "upstream: name the server behind, such as http://127.0.0.1:8000" }}{{ end -}}
  {{- include "keyward-lib.checkConfig" $v.config -}}
{{- end -}}
{{- end -}}

{{/* Options of the config that have a value of their own in the chart, and which. */}}
{{- define "keyward-lib.checkConfig" -}}
{{- if hasKey . "version" }}{{ fail "config.version: the chart writes it; leave it out" }}{{ end -}}
{{- if hasKey . "store" }}{{ fail "config.store: set keyStore instead" }}{{ end -}}
{{- $proxy := .proxy | default dict -}}
{{- range $name, $instead := dict "listen" "ports.proxy" "upstream" "upstream" "tls" "tls.existingSecret" -}}
  {{- if hasKey $proxy $name }}{{ fail (printf "config.proxy.%s: set %s instead" $name $instead) }}{{ end -}}
{{- end -}}
{{- $timeouts := $proxy.timeouts | default dict -}}
{{- range $name, $instead := dict "drain_delay" "shutdown.delaySeconds" "drain" "shutdown.drainSeconds" -}}
  {{- if hasKey $timeouts $name }}{{ fail (printf "config.proxy.timeouts.%s: set %s instead" $name $instead) }}{{ end -}}
{{- end -}}
{{- if hasKey (.keys | default dict) "pepper" }}{{ fail "config.keys.pepper: set pepper.existingSecret instead" }}{{ end -}}
{{- if hasKey (.ops | default dict) "listen" }}{{ fail "config.ops.listen: set ports.ops instead" }}{{ end -}}
{{- end -}}
