{{/*
The parts of a Pod. Each takes a dict:
  root     the chart's own context ($)
  values   the values in the shape of this chart's values.yaml
  name     what the ConfigMap and its kin are named after: the release's full name
  sidecar  true in a Pod of somebody else's
  claim    the name of a claim that the chart makes, if it makes one
*/}}

{{- define "keyward-lib.isNative" -}}
{{- if or (eq .values.sidecar.native "always") (and (eq .values.sidecar.native "auto") (semverCompare ">=1.29.0-0" .root.Capabilities.KubeVersion.Version)) }}true{{ end -}}
{{- end -}}

{{- define "keyward-lib.claim" -}}
{{- .values.keyStore.sqlite.existingClaim | default (.claim | default "") -}}
{{- end -}}

{{- define "keyward-lib.image" -}}
{{- $i := .values.image -}}
{{- $version := printf ":%s" ($i.tag | default "0.1.0") -}}
{{- if $i.digest }}{{ $version = printf "@%s" $i.digest }}{{ end -}}
{{- with $i.registry }}{{ . }}/{{ end }}{{ $i.repository }}{{ $version }}
{{- end -}}

{{/* Objects of a chart that is not ours say that they are Keyward's. */}}
{{- define "keyward-lib.objectName" -}}
{{- ternary (printf "%s-keyward" .name) .name (not (empty .sidecar)) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of what is not a Pod. */}}
{{- define "keyward-lib.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: keyward
app.kubernetes.io/part-of: {{ .name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* The sidecar among initContainers, and what comes before it. */}}
{{- define "keyward-lib.initContainers" -}}
{{- include "keyward-lib.check" . -}}
{{- if include "keyward-lib.prepares" . }}
{{ include "keyward-lib.prepare" . }}
{{- end }}
{{- if include "keyward-lib.isNative" . }}
- {{ include "keyward-lib.container" . | nindent 2 | trim }}
  restartPolicy: Always
{{- end }}
{{- end -}}

{{/* The sidecar among containers, where it is not among initContainers. */}}
{{- define "keyward-lib.containers" -}}
{{- if not (include "keyward-lib.isNative" .) }}
- {{ include "keyward-lib.container" . | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{- define "keyward-lib.container" -}}
{{- include "keyward-lib.check" . -}}
name: {{ ((.values).sidecar).name | default "keyward" }}
image: {{ include "keyward-lib.image" . | quote }}
imagePullPolicy: {{ .values.image.pullPolicy }}
args: [serve, --config, /etc/keyward/config/keyward.yaml]
{{- include "keyward-lib.environment" . }}
ports:
  - { name: kw-http, containerPort: {{ .values.ports.proxy }}, protocol: TCP }
  - { name: kw-ops, containerPort: {{ .values.ports.ops }}, protocol: TCP }
{{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
{{- with index $.values $probe }}
{{ $probe }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
securityContext:
  {{- toYaml .values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "keyward-lib.mounts" . | nindent 2 }}
{{- end -}}

{{- define "keyward-lib.environment" }}
{{- $postgres := eq .values.keyStore.type "postgres" }}
{{- $traces := hasKey .values.config "traces" }}
{{- if or $postgres $traces .values.extraEnv }}
env:
  {{- if $postgres }}
  - name: KEYWARD_STORE
    valueFrom:
      secretKeyRef: { name: {{ .values.keyStore.postgres.existingSecret }}, key: {{ .values.keyStore.postgres.key }} }
  {{- end }}
  {{- if $traces }}
  {{- range $name, $path := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "POD_UID" "metadata.uid" "NODE_NAME" "spec.nodeName" }}
  - name: {{ $name }}
    valueFrom: { fieldRef: { fieldPath: {{ $path }} } }
  {{- end }}
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.namespace.name=$(POD_NAMESPACE),k8s.node.name=$(NODE_NAME)
  {{- end }}
  {{- with .values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "keyward-lib.mounts" -}}
- { name: keyward-config, mountPath: /etc/keyward/config, readOnly: true }
- { name: keyward-pepper, mountPath: /etc/keyward/pepper, readOnly: true }
{{- if eq .values.keyStore.type "secret" }}
- { name: keyward-records, mountPath: /etc/keyward/records, readOnly: true }
{{- end }}
{{- if eq .values.keyStore.type "sqlite" }}
- { name: keyward-data, mountPath: /var/lib/keyward }
{{- end }}
{{- if and (eq .values.keyStore.type "postgres") .values.keyStore.postgres.caSecret }}
- { name: keyward-postgres, mountPath: /etc/keyward/postgres, readOnly: true }
{{- end }}
{{- if .values.tls.existingSecret }}
- { name: keyward-tls, mountPath: /etc/keyward/tls, readOnly: true }
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* No subPath anywhere: what is mounted by one never changes in a running Pod. */}}
{{- define "keyward-lib.volumes" -}}
- name: keyward-config
  configMap: { name: {{ include "keyward-lib.configMapName" . }} }
- name: keyward-pepper
  secret:
    secretName: {{ .values.pepper.existingSecret }}
    defaultMode: {{ .values.secretMode | default 288 }}
    items: [{ key: {{ .values.pepper.key }}, path: pepper }]
{{- if eq .values.keyStore.type "secret" }}
- name: keyward-records
  secret: { secretName: {{ .values.keyStore.secret.existingSecret }}, defaultMode: {{ .values.secretMode | default 288 }} }
{{- end }}
{{- if eq .values.keyStore.type "sqlite" }}
- name: keyward-data
  persistentVolumeClaim: { claimName: {{ include "keyward-lib.claim" . }} }
{{- with .values.keyStore.sqlite.importSecret }}
- name: keyward-import
  secret: { secretName: {{ . }}, defaultMode: {{ $.values.secretMode | default 288 }} }
{{- end }}
{{- end }}
{{- if and (eq .values.keyStore.type "postgres") .values.keyStore.postgres.caSecret }}
- name: keyward-postgres
  secret: { secretName: {{ .values.keyStore.postgres.caSecret }}, defaultMode: {{ .values.secretMode | default 288 }} }
{{- end }}
{{- if .values.tls.existingSecret }}
- name: keyward-tls
  secret: { secretName: {{ .values.tls.existingSecret }}, defaultMode: {{ .values.secretMode | default 288 }} }
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keyward-lib.prepares" -}}
{{- if and (eq .values.keyStore.type "sqlite") (or .values.keyStore.sqlite.create .values.keyStore.sqlite.importSecret) }}true{{ end -}}
{{- end -}}

{{/* An import makes the database where there is none; what is in it already is left alone. */}}
{{- define "keyward-lib.prepare" -}}
{{- $sqlite := .values.keyStore.sqlite -}}
- name: {{ ((.values).sidecar).name | default "keyward" }}-import
  image: {{ include "keyward-lib.image" . | quote }}
  imagePullPolicy: {{ .values.image.pullPolicy }}
  args:
    - key
    - import
    - --config
    - /etc/keyward/config/keyward.yaml
    - --input
    - {{ ternary (printf "/etc/keyward/import/%s" $sqlite.importKey) "/etc/keyward/config/no-keys.csv" (not (empty $sqlite.importSecret)) }}
    {{- if $sqlite.importSecret }}
    - --rejects
    - /var/lib/keyward/rejected
    {{- end }}
  resources:
    {{- toYaml .values.resources | nindent 4 }}
  securityContext:
    {{- toYaml .values.securityContext | nindent 4 }}
  volumeMounts:
    - { name: keyward-config, mountPath: /etc/keyward/config, readOnly: true }
    - { name: keyward-pepper, mountPath: /etc/keyward/pepper, readOnly: true }
    - { name: keyward-data, mountPath: /var/lib/keyward }
    {{- if $sqlite.importSecret }}
    - { name: keyward-import, mountPath: /etc/keyward/import, readOnly: true }
    {{- end }}
{{- end -}}

{{/* A Pod whose annotation changes is replaced: so that a change of the config is rolled out, and a bad one stops there. */}}
{{- define "keyward-lib.podAnnotations" -}}
{{- if not .values.existingConfigMap -}}
keyward/config: {{ include "keyward-lib.config" . | sha256sum | trunc 16 | quote }}
{{- end -}}
{{- end -}}
